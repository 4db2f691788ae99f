"""The gateway against a scripted inference service: bodies, answers, streams."""

from typing import Any

import pytest

from shared.adapters.models import Adapter
from shared.db import transaction
from shared.inference import cache_salt
from tests.services.api.conftest import BASE, Api, Exchange, Tenant, Upstream

ASK: list[Any] = [{"role": "user", "content": "営業時間は?"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@pytest.fixture
def model(api: Api, tenant: Tenant) -> str:
    """A fine-tuned model of the tenant's."""
    return api.add_adapter(tenant)


def internal_name(api: Api, model: str) -> str:
    """Return the adapter id behind a public name."""
    with transaction(api.system) as session:
        return str(session.query(Adapter.id).where(Adapter.model == model).scalar())


def whole_answer(exchange: Exchange) -> None:
    """Answer as vLLM does, with the keys that are its own."""
    exchange.send_json(
        200,
        {
            "id": "chatcmpl-internal",
            "object": "chat.completion",
            "created": 1,
            "model": exchange.body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "九時からです。",
                        "reasoning": None,
                        "tool_calls": [],
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                    "stop_reason": None,
                    "token_ids": [1, 2],
                }
            ],
            "usage": USAGE | {"prompt_tokens_details": None},
            "prompt_token_ids": [1],
            "kv_transfer_params": None,
        },
    )


def chunk(exchange: Exchange, **choice: Any) -> dict[str, Any]:
    """Build a chunk as vLLM does."""
    return {
        "id": "chatcmpl-internal",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": exchange.body["model"],
        "choices": [
            {"index": 0, "logprobs": None, "finish_reason": None, "token_ids": []} | choice
        ],
        "usage": USAGE,
    }


def streamed_answer(exchange: Exchange) -> None:
    """Stream an answer as vLLM does."""
    exchange.start_stream()
    exchange.send_event(chunk(exchange, delta={"role": "assistant", "content": ""}))
    exchange.send_event(chunk(exchange, delta={"content": "九時\u2028から", "reasoning": None}))
    exchange.send_event(chunk(exchange, delta={"content": ""}, finish_reason="length"))
    exchange.send_event(chunk(exchange) | {"choices": []})
    exchange.send_event("[DONE]")
    exchange.end_stream()


def test_an_answer_carries_the_public_name_and_only_openais_keys(
    api: Api, tenant: Tenant, model: str, upstream: Upstream
) -> None:
    upstream.script = whole_answer
    answer = tenant.http.post("/v1/chat/completions", json={"model": model, "messages": ASK})
    assert answer.status_code == 200
    found = answer.json()
    assert internal_name(api, model) not in answer.text
    assert "internal" not in answer.text
    assert found["id"].startswith("chatcmpl-")
    assert found | {"id": "", "created": 0} == {
        "id": "",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "九時からです。", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_the_body_upstream_is_built_anew(
    api: Api, tenant: Tenant, model: str, upstream: Upstream
) -> None:
    upstream.script = whole_answer
    tenant.openai.chat.completions.create(
        model=model,
        messages=[
            {"role": "developer", "content": "丁寧に"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "や"}, {"type": "text", "text": "あ"}],
            },
        ],
        temperature=0,
        max_completion_tokens=20,
        stop=["。"],
        user="客",
        metadata={"a": "b"},
        extra_headers={"x-request-id": "mine"},
    )
    seen = upstream.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == "Bearer internal-secret"
    assert "x-request-id" not in seen.headers
    assert seen.body == {
        "model": internal_name(api, model),
        "messages": [
            {"role": "system", "content": "丁寧に"},
            {"role": "user", "content": "やあ"},
        ],
        "temperature": 0.0,
        "n": 1,
        "stop": ["。"],
        "max_tokens": 20,
        "cache_salt": cache_salt("salt-key", tenant.id),
    }


def test_a_base_model_goes_by_its_own_name_with_the_tenants_salt(
    tenant: Tenant, stranger: Tenant, upstream: Upstream
) -> None:
    upstream.script = whole_answer
    for someone in (tenant, stranger):
        answer = someone.openai.chat.completions.create(model=BASE, messages=ASK)
        assert answer.model == BASE
    bodies = [exchange.body for exchange in upstream.seen]
    assert [body["model"] for body in bodies] == [BASE, BASE]
    assert bodies[0]["cache_salt"] != bodies[1]["cache_salt"]
    assert bodies[0]["max_tokens"] == 512


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"cache_salt": "mine"}, "cache_salt"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"chat_template_kwargs": {}}, "chat_template_kwargs"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"bad_words": ["x"]}, "bad_words"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"prompt_embeds": "x"}, "prompt_embeds"),
        ({"vllm_xargs": {"a": 1}}, "vllm_xargs"),
        ({"kv_transfer_params": {}}, "kv_transfer_params"),
        ({"priority": 1}, "priority"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"n": 9}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2049}, "max_tokens"),
        ({"stop": ["x"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content",
        ),
    ],
)
def test_what_is_not_allowed_is_refused_by_name_and_never_sent(
    tenant: Tenant, model: str, upstream: Upstream, extra: dict[str, Any], param: str | None
) -> None:
    body = {"model": model, "messages": ASK} | extra
    answer = tenant.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert upstream.seen == []


def test_null_is_the_same_as_absent_and_our_own_answers_can_be_sent_back(
    tenant: Tenant, model: str, upstream: Upstream
) -> None:
    upstream.script = whole_answer
    first = tenant.openai.chat.completions.create(model=model, messages=ASK)
    turn: Any = first.choices[0].message.model_dump()
    body = {"model": model, "messages": [*ASK, turn, *ASK], "tools": None, "logit_bias": None}
    assert tenant.http.post("/v1/chat/completions", json=body).status_code == 200


def test_logprobs_are_passed_through_in_openais_shape(
    tenant: Tenant, model: str, upstream: Upstream
) -> None:
    token = {"token": "九", "logprob": -0.1, "bytes": [228, 185, 157], "token_id": 5}

    def script(exchange: Exchange) -> None:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "九"},
            "logprobs": {"content": [token | {"top_logprobs": [token]}]},
            "finish_reason": "stop",
        }
        exchange.send_json(200, {"choices": [choice], "usage": USAGE})

    upstream.script = script
    answer = tenant.openai.chat.completions.create(
        model=model, messages=ASK, logprobs=True, top_logprobs=1
    )
    assert upstream.seen[0].body["top_logprobs"] == 1
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].top_logprobs[0].bytes == [228, 185, 157]
    assert "token_id" not in answer.model_dump_json()


def test_a_text_completion_has_its_own_shape(
    tenant: Tenant, model: str, upstream: Upstream
) -> None:
    choice = {
        "index": 0,
        "text": "です",
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": 2,
    }
    upstream.script = lambda exchange: exchange.send_json(
        200, {"choices": [choice], "usage": USAGE}
    )
    answer = tenant.openai.completions.create(model=model, prompt="営業")
    assert (answer.object, answer.model, answer.choices[0].text) == (
        "text_completion",
        model,
        "です",
    )
    assert "stop_reason" not in answer.model_dump_json()
    assert upstream.seen[0].path == "/v1/completions"
    assert upstream.seen[0].body["prompt"] == "営業"
    assert upstream.seen[0].body["max_tokens"] == 16
    refused = tenant.http.post("/v1/completions", json={"model": model, "prompt": [1, 2]})
    assert refused.json()["error"]["param"].startswith("prompt")


def test_a_stream_is_rewritten_chunk_by_chunk(
    api: Api, tenant: Tenant, model: str, upstream: Upstream
) -> None:
    upstream.script = streamed_answer
    body = {"model": model, "messages": ASK, "stream": True}
    answer = tenant.http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert internal_name(api, model) not in answer.text
    assert "internal" not in answer.text
    assert "token_ids" not in answer.text
    assert '"usage"' not in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert upstream.seen[0].body["stream_options"]["include_usage"] is True


def test_the_official_client_reads_the_stream(
    tenant: Tenant, model: str, upstream: Upstream
) -> None:
    upstream.script = streamed_answer
    chunks = list(
        tenant.openai.chat.completions.create(
            model=model, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {model}
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == "九時\u2028から"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10


@pytest.mark.parametrize(
    ("data_format", "as_trained"),
    [("prompt", True), ("chat", None), ("instruction", None), (None, None)],
)
def test_a_bare_prompt_goes_where_training_on_prompts_put_it(
    *,
    api: Api,
    tenant: Tenant,
    upstream: Upstream,
    model: str,
    data_format: str | None,
    as_trained: bool | None,
) -> None:
    with transaction(api.system) as session:
        row = session.query(Adapter).where(Adapter.model == model).one()
        row.data_format = data_format
    upstream.script = lambda exchange: exchange.send_json(
        200, {"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}], "usage": USAGE}
    )
    tenant.openai.completions.create(model=model, prompt=["a", "b"])
    bodies = [exchange.body for exchange in upstream.seen]
    assert {body.get("tailor_prompt_as_trained") for body in bodies} == {as_trained}
    assert sorted(body["prompt"] for body in bodies) == ["a", "b"]


def test_nobody_but_the_gateway_says_how_a_prompt_was_trained(tenant: Tenant, model: str) -> None:
    body = {"model": model, "prompt": "a", "tailor_prompt_as_trained": True}
    refused = tenant.http.post("/v1/completions", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "tailor_prompt_as_trained"
