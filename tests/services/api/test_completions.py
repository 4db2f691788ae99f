"""The gateway against a scripted inference service: bodies, answers, streams, faults."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.api.completions.service import cache_salt
from shared.adapters.models import Adapter
from shared.db import transaction
from tests.conftest import wait_until
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


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (
            400,
            {"message": "max context is 2048", "param": "input_tokens", "code": 400},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        (400, {"message": "bad ADAPTER", "param": None}, openai.BadRequestError, None),
        (404, {"message": "no ADAPTER"}, openai.NotFoundError, "model_not_found"),
        (429, {"message": "busy"}, openai.RateLimitError, "rate_limit_exceeded"),
        (401, {"message": "secret"}, openai.InternalServerError, "inference_unavailable"),
        (500, {"message": "engine"}, openai.InternalServerError, "inference_unavailable"),
    ],
)
def test_an_error_upstream_is_a_real_error_with_the_public_name(  # noqa: PLR0917  parametrised
    api: Api,
    tenant: Tenant,
    model: str,
    upstream: Upstream,
    stream: bool,
    status: int,
    error: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str | None,
) -> None:
    adapter = internal_name(api, model)
    message = error["message"].replace("ADAPTER", adapter)
    upstream.script = lambda exchange: exchange.send_json(
        status, {"error": error | {"message": message}}
    )
    with pytest.raises(kind) as caught:
        tenant.openai.chat.completions.create(
            model=model, messages=ASK, stream=stream, max_tokens=8
        )
    assert caught.value.code == code
    assert adapter not in caught.value.response.text
    assert "secret" not in caught.value.response.text


def test_an_error_as_first_event_is_a_real_error(
    api: Api, tenant: Tenant, model: str, upstream: Upstream
) -> None:
    adapter = internal_name(api, model)

    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.send_event({"error": {"message": f"no {adapter}", "code": 400, "type": "x"}})
        exchange.end_stream()

    upstream.script = script
    with pytest.raises(openai.BadRequestError, match="no ft:"):
        tenant.openai.chat.completions.create(model=model, messages=ASK, stream=True)


def test_a_default_answer_length_gives_way_to_a_long_prompt(
    tenant: Tenant, model: str, upstream: Upstream
) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.body["max_tokens"] is not None:
            error = {"message": "too long", "param": "input_tokens", "code": 400}
            exchange.send_json(400, {"error": error})
        else:
            whole_answer(exchange)

    upstream.script = script
    assert tenant.openai.chat.completions.create(model=model, messages=ASK).usage is not None
    with pytest.raises(openai.BadRequestError):
        tenant.openai.chat.completions.create(model=model, messages=ASK, max_tokens=500)


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_that_is_too_long_is_named_by_its_parameter(
    tenant: Tenant, model: str, upstream: Upstream, stream: bool
) -> None:
    said = "the prompt has 2100 tokens."
    message = f"{said} (parameter=input_tokens, value=2100)"
    error = {"message": message, "param": "input_tokens", "code": 400}
    upstream.script = lambda exchange: exchange.send_json(400, {"error": error})
    for path, body in (("chat/completions", {"messages": ASK}), ("completions", {"prompt": "a"})):
        asked = {"model": model, "max_tokens": 8, "stream": stream} | body
        refused = tenant.http.post(f"/v1/{path}", json=asked).json()["error"]
        assert (refused["message"], refused["code"]) == (said, "context_length_exceeded")
        assert refused["param"] in body


def break_by_closing(exchange: Exchange) -> None:
    """Stop in the middle of the chunked body."""


def break_by_ending(exchange: Exchange) -> None:
    """End the body properly, but without [DONE]."""
    exchange.end_stream()


def break_by_error(exchange: Exchange) -> None:
    """Send an error event that names the adapter."""
    exchange.send_event({"error": {"message": exchange.body["model"], "code": 500}})
    exchange.end_stream()


def break_by_garbage(exchange: Exchange) -> None:
    """Send something that is not JSON."""
    exchange.send_event('{"choices": ')
    exchange.end_stream()


@pytest.mark.parametrize(
    "breaking", [break_by_closing, break_by_ending, break_by_error, break_by_garbage]
)
def test_a_broken_stream_ends_with_an_error_event(
    api: Api, tenant: Tenant, model: str, upstream: Upstream, breaking: Any
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.send_event(chunk(exchange, delta={"role": "assistant", "content": "九"}))
        breaking(exchange)

    upstream.script = script
    seen: list[str | None] = []
    stream = tenant.openai.chat.completions.create(model=model, messages=ASK, stream=True)
    with pytest.raises(openai.APIError) as caught:
        seen.extend(piece.choices[0].delta.content for piece in stream)
    assert seen == ["九"]
    assert caught.value.code == "inference_unavailable"
    assert internal_name(api, model) not in str(caught.value)


def test_a_stream_that_never_begins_is_a_503(
    tenant: Tenant, model: str, upstream: Upstream
) -> None:
    upstream.script = lambda exchange: exchange.start_stream()
    with pytest.raises(openai.InternalServerError) as caught:
        tenant.openai.chat.completions.create(model=model, messages=ASK, stream=True)
    assert caught.value.status_code == 503


@pytest.mark.parametrize("stream", [False, True])
def test_the_inference_service_away_is_a_503_with_a_retry_header(
    api: Api, tenant: Tenant, model: str, stream: bool, upstream: Upstream
) -> None:
    upstream.script = lambda _: None
    body = {"model": model, "messages": ASK, "stream": stream}
    answer = tenant.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "inference_unavailable"
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(("stream", "begun"), [(False, False), (True, False), (True, True)])
def test_a_caller_who_leaves_ends_the_work_upstream(  # noqa: PLR0917  parametrised
    api: Api, tenant: Tenant, model: str, upstream: Upstream, stream: bool, begun: bool
) -> None:
    left: list[bool] = []

    def script(exchange: Exchange) -> None:
        if begun:
            exchange.start_stream()
            exchange.send_event(chunk(exchange, delta={"role": "assistant", "content": "九"}))
        left.append(exchange.was_left())

    upstream.script = script
    body = {"model": model, "messages": ASK, "stream": stream}
    with api.client(tenant.key) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=body, timeout=0.5)
    wait_until(lambda: left == [True], "the connection upstream is closed")


class Records(logging.Handler):
    """Keeps what the gateway logs."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.data.append(record.__dict__["data"])


@pytest.fixture
def metered() -> Iterator[list[dict[str, Any]]]:
    """What was metered during a test."""
    logger = logging.getLogger("services.api.completions.metering")
    handler, level = Records(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.data
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("stream", [False, True])
def test_every_completion_is_metered_once_without_its_text(
    tenant: Tenant, model: str, upstream: Upstream, metered: list[dict[str, Any]], stream: bool
) -> None:
    upstream.script = streamed_answer if stream else whole_answer
    body = {"model": model, "messages": ASK, "stream": stream}
    assert tenant.http.post("/v1/chat/completions", json=body).status_code == 200
    wait_until(lambda: metered, "the completion is metered")
    (line,) = metered
    assert (line["outcome"], line["tenant_id"], line["model"]) == ("ok", tenant.id, model)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 3)
    assert "営業時間" not in json.dumps(line, ensure_ascii=False)


def test_a_caller_who_leaves_midway_is_metered_for_what_was_made(
    api: Api, tenant: Tenant, model: str, upstream: Upstream, metered: list[dict[str, Any]]
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.send_event(chunk(exchange, delta={"role": "assistant", "content": "九"}))
        exchange.was_left()

    upstream.script = script
    body = {"model": model, "messages": ASK, "stream": True}
    with (
        api.client(tenant.key) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        next(answer.iter_lines())
    wait_until(lambda: metered, "the completion is metered")
    assert metered[0]["outcome"] == "abandoned"
    assert metered[0]["completion_tokens"] == 3


def test_metrics_count_tokens_by_kind(
    api: Api, tenant: Tenant, model: str, upstream: Upstream
) -> None:
    upstream.script = whole_answer
    before = tokens_by_kind(api)
    tenant.openai.chat.completions.create(model=model, messages=ASK)
    tenant.openai.chat.completions.create(model=BASE, messages=ASK)
    tenant.openai.chat.completions.create(model=BASE, messages=ASK)
    assert tokens_by_kind(api) - before == {
        ("adapter", "prompt"): 7,
        ("adapter", "completion"): 3,
        ("base", "prompt"): 14,
        ("base", "completion"): 6,
    }
    assert model not in api.admin().get("/metrics").text


def tokens_by_kind(api: Api) -> Counter[tuple[str, str]]:
    """Return the tokens metered so far."""
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(api.admin().get("/metrics").text):
        for sample in family.samples:
            if sample.name == "tailor_tokens_total":
                key = (sample.labels["kind"], sample.labels["direction"])
                found[key] = int(sample.value)
    return found


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
