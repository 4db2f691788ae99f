"""The gateway when the inference service errs, breaks off or is away, or its caller leaves."""

from typing import Any

import httpx
import openai
import pytest

from tests.conftest import wait_until
from tests.services.api.conftest import Api, Exchange, Tenant, Upstream
from tests.services.api.test_completions import (
    ASK,
    chunk,
    internal_name,
    model,
    whole_answer,
)

__all__ = ["model"]


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
