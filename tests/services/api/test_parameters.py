"""What other people's clients send with a completion: neutral values, hints, and real wishes."""

from typing import Any

import pytest

from tests.services.api.conftest import BASE, Exchange, Tenant, Upstream
from tests.services.api.test_completions import ASK, USAGE, whole_answer

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": BASE, "messages": ASK},
    TEXT: {"model": BASE, "prompt": "営業"},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


def text_answer(exchange: Exchange) -> None:
    """Answer every prompt as vLLM does."""
    prompts = exchange.body["prompt"]
    texts = prompts if isinstance(prompts, list) else [prompts]
    choices = [
        {"index": index, "text": f"<{text}>", "logprobs": None, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    exchange.send_json(200, {"choices": choices, "usage": USAGE})


SCRIPTS = {CHAT: whole_answer, TEXT: text_answer}


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        (TEXT, {"best_of": 1}),
        (TEXT, {"echo": False}),
        (TEXT, {"suffix": ""}),
        (TEXT, {"suffix": None}),
        (TEXT, {"logit_bias": {}}),
        (CHAT, {"logit_bias": {}}),
        (CHAT, {"modalities": ["text"]}),
        (CHAT, {"parallel_tool_calls": True}),
        (CHAT, {"parallel_tool_calls": False}),
        (CHAT, {"tools": []}),
        (CHAT, {"tools": [], "tool_choice": "auto"}),
        (CHAT, {"tool_choice": "none"}),
        (CHAT, {"functions": [], "function_call": "none"}),
        (CHAT, {"prediction": None, "audio": None, "web_search_options": None}),
        (CHAT, {"response_format": {"type": "text"}}),
        (CHAT, {"top_logprobs": 0}),
        (CHAT, {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
        (CHAT, {"stream_options": {"include_usage": True}}),
        (CHAT, {"extra_body": {}}),
        (CHAT, {"reasoning_effort": "none"}),
        (CHAT, {"reasoning_effort": "high", "verbosity": "low"}),
        (CHAT, {"prompt_cache_key": "thread-1", "prompt_cache_retention": "24h"}),
        (CHAT, {"user": "u", "store": True, "service_tier": "auto", "safety_identifier": "s"}),
        (TEXT, {"user": "u", "metadata": {"a": "b"}, "prompt_cache_key": "k"}),
        (CHAT, {"stop": [], "seed": None, "max_tokens": None}),
    ],
)
def test_what_asks_for_nothing_is_accepted_and_goes_no_further(
    tenant: Tenant, upstream: Upstream, url: str, extra: dict[str, Any]
) -> None:
    upstream.script = SCRIPTS[url]
    assert tenant.http.post(url, json=BODIES[url]).status_code == 200
    answer = tenant.http.post(url, json=BODIES[url] | extra)
    assert answer.status_code == 200, answer.text
    plain, with_extra = (exchange.body for exchange in upstream.seen)
    assert {name: value for name, value in with_extra.items() if name != "stop"} == plain


@pytest.mark.parametrize(
    ("url", "extra", "param", "said"),
    [
        (CHAT, {"tools": [TOOL]}, "tools", "Tools"),
        (CHAT, {"tools": [TOOL], "tool_choice": "auto"}, "tools", "Tools"),
        (CHAT, {"tool_choice": "required"}, "tool_choice", "Tools"),
        (CHAT, {"tool_choice": TOOL}, "tool_choice", "Tools"),
        (CHAT, {"functions": [{"name": "f"}]}, "functions", "function calls"),
        (CHAT, {"function_call": {"name": "f"}}, "function_call", "function calls"),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities", "audio"),
        (CHAT, {"audio": {"voice": "alloy", "format": "wav"}}, "audio", "audio"),
        (CHAT, {"response_format": SCHEMA}, "response_format.type", "json_schema"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format.type", "structured"),
        (CHAT, {"web_search_options": {}}, "web_search_options", "Web search"),
        (CHAT, {"prediction": {"type": "content", "content": "x"}}, "prediction", "Predicted"),
        (CHAT, {"logit_bias": {"50256": -100}}, "logit_bias", "Biases"),
        (CHAT, {"top_k": 40}, "top_k", "sampling"),
        (CHAT, {"min_p": 0.05}, "min_p", "sampling"),
        (CHAT, {"repetition_penalty": 1.1}, "repetition_penalty", "sampling"),
        (CHAT, {"extra_body": {"top_k": 1}}, "extra_body", "beside"),
        (TEXT, {"best_of": 3}, "best_of", "best"),
        (TEXT, {"echo": True}, "echo", "Repeating"),
        (TEXT, {"suffix": "です"}, "suffix", "suffix"),
        (CHAT, {"best_answer": True}, "best_answer", "best_answer"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_its_own_name(  # noqa: PLR0917  parametrised
    tenant: Tenant, upstream: Upstream, url: str, extra: dict[str, Any], param: str, said: str
) -> None:
    answer = tenant.http.post(url, json=BODIES[url] | extra)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["code"] == "unsupported_parameter"
    assert said in error["message"]
    assert error["message"].count(".") <= 2
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("message", "param", "said"),
    [
        ({"role": "user", "content": [IMAGE]}, "content", "image_url parts are not supported"),
        (
            {"role": "user", "content": [{"type": "text", "text": "何?"}, IMAGE]},
            "content",
            "image_url parts are not supported",
        ),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "content", "input_audio parts"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "content", "file parts"),
        ({"role": "user", "content": None}, "content", "null"),
        ({"role": "assistant", "content": None, "tool_calls": [TOOL]}, "tool_calls", "not supp"),
        ({"role": "assistant", "content": "", "function_call": {}}, None, ""),
        ({"role": "tool", "tool_call_id": "x", "content": "1"}, "role", "tools"),
        ({"role": "function", "name": "f", "content": "1"}, "role", "tools"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "audio", "not supported"),
        ({"role": "user"}, "content", "required"),
        ("hello", "", "JSON object"),
        ({"role": "user", "content": 5}, "content", "valid string"),
    ],
)
def test_a_turn_that_is_not_text_is_refused_by_its_place(
    tenant: Tenant, upstream: Upstream, message: Any, param: str | None, said: str
) -> None:
    upstream.script = whole_answer
    answer = tenant.http.post(CHAT, json={"model": BASE, "messages": [*ASK, message]})
    if param is None:
        assert answer.status_code == 200
        return
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == f"messages.1.{param}".rstrip(".")
    assert said in error["message"]


def test_turns_that_other_clients_send_back_are_accepted(
    tenant: Tenant, upstream: Upstream
) -> None:
    upstream.script = whole_answer
    turn: dict[str, object] = {
        "role": "assistant",
        "content": "はい",
        "refusal": None,
        "reasoning_content": "",
        "annotations": [],
        "tool_calls": [],
        "function_call": None,
    }
    part = {"type": "text", "text": "や", "cache_control": {"type": "ephemeral"}}
    messages = [*ASK, turn, {"role": "user", "content": [part]}]
    assert tenant.http.post(CHAT, json={"model": BASE, "messages": messages}).status_code == 200
    assert upstream.seen[0].body["messages"][1:] == [
        {"role": "assistant", "content": "はい"},
        {"role": "user", "content": "や"},
    ]


@pytest.mark.parametrize("count", [1, 20, 128])
def test_many_prompts_are_answered_in_their_order(
    tenant: Tenant, upstream: Upstream, count: int
) -> None:
    upstream.script = text_answer
    prompts = [f"{number} と" for number in range(count)]
    answer = tenant.openai.completions.create(model=BASE, prompt=prompts)
    assert [choice.index for choice in answer.choices] == list(range(count))
    assert [choice.text for choice in answer.choices] == [f"<{prompt}>" for prompt in prompts]


@pytest.mark.parametrize(
    ("url", "extra", "param", "said"),
    [
        (TEXT, {"prompt": ["x"] * 129}, "prompt", "128"),
        (TEXT, {"prompt": ["x"] * 20, "n": 8}, "prompt", "160 answers"),
        (TEXT, {"prompt": ["x"] * 65, "n": 2}, "prompt", "130 answers"),
        (TEXT, {"prompt": [1, 2]}, "prompt", "token ids"),
        (TEXT, {"prompt": [[1], [2]]}, "prompt", "token ids"),
        (CHAT, {"stop": list("abcde")}, "stop", "at most 4"),
        (TEXT, {"stop": list("abcdef")}, "stop", "at most 4"),
        (CHAT, {"n": 2, "temperature": 0}, "n", "the same"),
        (TEXT, {"n": 3, "temperature": 0.000001}, "n", "the same"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ],
)
def test_limits_name_the_parameter_and_have_a_code(  # noqa: PLR0917  parametrised
    tenant: Tenant, upstream: Upstream, url: str, extra: dict[str, Any], param: str, said: str
) -> None:
    answer = tenant.http.post(url, json=BODIES[url] | extra)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["code"] in {"invalid_value", "unsupported_parameter"}
    assert said in error["message"]
    assert "Value error" not in error["message"]
    assert upstream.seen == []


@pytest.mark.parametrize("place", ["top", "message", "nested"])
def test_a_long_name_is_not_repeated(tenant: Tenant, place: str) -> None:
    name = "x" * 100_000
    body: dict[str, Any] = {"model": BASE, "messages": ASK}
    if place == "top":
        body[name] = 1
    elif place == "message":
        body["messages"] = [{"role": "user", "content": "x", name: 1}]
    else:
        body["stream_options"] = {name: 1}
    answer = tenant.http.post(CHAT, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert len(answer.content) < 1000


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Idempotency-Key", "k" * 256),
        ("X-Stainless-Retry-Count", "abc"),
        ("X-Stainless-Retry-Count", "1.5"),
    ],
)
def test_a_wrong_header_is_named(tenant: Tenant, header: str, value: str) -> None:
    asked = {"model": BASE, "training_file": "file-x"}
    answer = tenant.http.post("/v1/fine_tuning/jobs", json=asked, headers={header: value})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_value")
    assert error["param"].lower() == header.lower()
    assert error["message"].startswith("The header ")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("url", "kind"), [(CHAT, "chat.completion"), (TEXT, "text_completion")])
def test_a_credential_check_with_a_ping_passes(
    tenant: Tenant, upstream: Upstream, url: str, kind: str, stream: bool
) -> None:
    def streamed(exchange: Exchange) -> None:
        part = {"delta": {"content": "日"}} if url == CHAT else {"text": "日"}
        choice = {"index": 0, "logprobs": None, "finish_reason": None} | part
        exchange.start_stream()
        for reason in (None, "length"):
            exchange.send_event({"choices": [choice | {"finish_reason": reason}], "usage": USAGE})
        exchange.send_event("[DONE]")
        exchange.end_stream()

    upstream.script = streamed if stream else SCRIPTS[url]
    asked = BODIES[url] | {"max_tokens": 5, "user": "abc-123", "stream": stream, "stop": []}
    answer = tenant.http.post(url, json=asked)
    assert answer.status_code == 200
    if not stream:
        assert answer.json()["object"] == kind
        return
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith('data: {"id":') for event in events[:-2])
