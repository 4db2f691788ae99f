from tests.cli.conftest import Reply, error_reply


def _chunk(text: str) -> dict[str, object]:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [delta],
    }


def test_one_question_gets_one_answer(api, tailor) -> None:
    api.on("POST /chat/completions", Reply([_chunk("部品番号は"), _chunk("LS-413です。")]))
    result = tailor("chat", "m", "蓋スイッチの部品番号は?")
    assert result.output == "部品番号はLS-413です。\n"
    sent = api.requests[0].json
    assert sent["messages"] == [{"role": "user", "content": "蓋スイッチの部品番号は?"}]
    assert sent["stream"]


def test_a_conversation_remembers_what_was_said(api, tailor) -> None:
    api.on("POST /chat/completions", Reply([_chunk("Hello.")]))
    result = tailor("chat", "m", "--system", "Be brief.", input="Hi\nAgain\n")
    assert result.exit_code == 0
    roles = [message["role"] for message in api.requests[1].json["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


def test_an_unknown_model_is_one_sentence(api, tailor) -> None:
    api.on("POST /chat/completions", error_reply(404, "The model `x` does not exist."))
    result = tailor("chat", "x", "Hi")
    assert result.exit_code == 1
    assert result.output == "error: The model `x` does not exist.\n"


def test_without_a_model_the_served_base_answers(api, tailor) -> None:
    api.serve("ft:base-of-today:org:x:12345678", "base-of-today")
    api.on("POST /chat/completions", Reply([_chunk("Hello.")]))
    assert tailor("chat", input="Hi\n").exit_code == 0
    assert api.requests[0].json["model"] == "base-of-today"
