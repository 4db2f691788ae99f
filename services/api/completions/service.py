"""The gateway: a public model name in the tenant's own scope, a body built anew, an answer rebuilt.

The first chunk is fetched before the status line is sent, so that an upstream error is a real
error, and an inference process that dies before it costs the caller nothing: another is asked.
Metering and the abort upstream happen however the answer ends.
"""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import httpx
from anyio import to_thread

from services.api.completions import answers, fanout, upstream
from services.api.completions.answers import Json, Label, Shape
from services.api.completions.connection import EventStream
from services.api.completions.metering import Meter
from services.api.completions.replicas import Begin, begun
from services.api.completions.schemas import CompletionOptions
from services.api.deps import Parts
from services.api.models.service import NOT_SERVED, find_adapter, find_base, why_unavailable
from services.api.rate_limits import Allowance
from shared.catalog import BaseModelEntry
from shared.db import tenant_transaction
from shared.errors import Conflict, InvalidRequest, TailorError, payload
from shared.ids import new_id
from shared.inference import BrokenStream, cache_salt
from shared.inference import events as events_of
from shared.settings import TENANT_HEADER

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """The model that answers."""

    name: str
    """Inside the inference service: an adapter's id, or a base model's name."""
    base_model: str
    """Who serves it is asked."""
    context_length: int
    is_adapter: bool
    prompt_as_trained: bool = False
    """Trained on prompt and completion: a bare prompt goes where training put it."""


@dataclass(frozen=True)
class Call:
    """One completion on its way."""

    parts: Parts
    target: Target
    shape: Shape
    asked: CompletionOptions
    body: dict[str, Any]
    label: Label
    meter: Meter
    allowance: Allowance

    async def settle(self) -> None:
        """Write down what it cost, and give back its place among the tenant's requests."""
        self.meter.record()
        await self.parts.rates.settle(self.allowance, self.meter.total_tokens())


async def prepare(
    parts: Parts, allowance: Allowance, shape: Shape, asked: CompletionOptions
) -> Call:
    """Find the model and build the upstream request; raise what is wrong with it."""
    tenant_id = allowance.tenant_id
    async with parts.look_ups.of(tenant_id):
        target = await to_thread.run_sync(_target, parts, tenant_id, asked.model)
    label = Label(new_id(shape.id_prefix), int(time.time()), asked.model)
    meter = Meter(parts.metrics, tenant_id, asked.model, is_adapter=target.is_adapter, n=asked.n)
    body = _body(parts, tenant_id, asked, target)
    return Call(parts, target, shape, asked, body, label, meter, allowance)


async def answer(call: Call) -> dict[str, Any]:
    """Return a complete answer."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(call.settle)
        with call.meter.noting_refusal():
            bodies = enumerate(fanout.pieces(call.body))
            works = [partial(_answered, call, number, body) for number, body in bodies]
            found = fanout.joined(await fanout.gathered(works))
        call.meter.count_whole(found.get("usage"))
        call.meter.outcome = "ok"
        return answers.whole(call.shape, call.label, found)


async def _answered(call: Call, number: int, body: dict[str, Any]) -> dict[str, Any]:
    async with _begun(call, partial(_read, call, body)) as whole:
        found = whole
    found = fanout.numbered(found, number, call.asked.n)
    # Counted now: the caller may leave before the other pieces have come.
    call.meter.count({**found, "choices": found["choices"][:1]})
    return found


async def stream(call: Call) -> EventStream:
    """Return a streamed answer whose first chunk is already here."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(call.settle)
        with call.meter.noting_refusal():
            bodies = enumerate(fanout.pieces(call.body))
            events = fanout.merged([_events(call, number, body) for number, body in bodies])
            stack.push_async_callback(events.aclose)
            first = await anext(events)
        resources = stack.pop_all()
    stall_seconds = call.parts.settings.stream_stall_seconds
    return EventStream(_relay(call, first, events), resources, stall_seconds)


async def _read(
    call: Call, body: dict[str, Any], url: str, stack: AsyncExitStack
) -> dict[str, Any]:
    return await upstream.read_whole(await _open(call, body, url, stack))


async def _events(call: Call, number: int, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    async with _begun(call, partial(_first_event, call, body)) as (first, rest):
        yield fanout.numbered(first, number, call.asked.n)
        async for event in rest:
            yield fanout.numbered(event, number, call.asked.n)


async def _first_event(
    call: Call, body: dict[str, Any], url: str, stack: AsyncExitStack
) -> tuple[dict[str, Any], AsyncGenerator[dict[str, Any]]]:
    events = events_of(await _open(call, body, url, stack))
    await stack.enter_async_context(aclosing(events))
    try:
        first = await anext(events)
    except (BrokenStream, StopAsyncIteration) as error:
        raise upstream.away() from error
    if "error" in first:
        raise _error_in(first, call)
    return first, events


def _begun(call: Call, begin: Begin[T]) -> AbstractAsyncContextManager[T]:
    target = call.target
    adapter = target.name if target.is_adapter else None
    return begun(call.parts.replicas, target.base_model, adapter, begin)


def _target(parts: Parts, tenant_id: str, name: str) -> Target:
    base = find_base(parts, name)
    if base is not None:
        return Target(base.name, base.name, base.context_length, is_adapter=False)
    with tenant_transaction(parts.tenant_engine, tenant_id) as session:
        adapter = find_adapter(session, tenant_id, name)
    if why := why_unavailable(parts, adapter):
        raise Conflict(why, "model", NOT_SERVED)
    entry: BaseModelEntry = parts.catalog.get(adapter.base_model)
    return Target(
        adapter.id,
        entry.name,
        entry.context_length,
        is_adapter=True,
        prompt_as_trained=adapter.data_format == "prompt",
    )


def _body(parts: Parts, tenant_id: str, asked: CompletionOptions, target: Target) -> dict[str, Any]:
    tokens = asked.answer_tokens()
    if tokens is not None and tokens > target.context_length:
        raise InvalidRequest(
            f"max_tokens is at most {target.context_length}, the model's context length.",
            "max_tokens",
            "context_length_exceeded",
        )
    body = asked.forwarded() | {
        "model": target.name,
        "max_tokens": tokens or min(parts.settings.default_max_tokens, target.context_length - 1),
        "cache_salt": cache_salt(parts.settings.cache_salt_key.get_secret_value(), tenant_id),
    }
    if target.prompt_as_trained and "prompt" in body:
        # The inference service has the chat template; see services/inference/plain_text.py.
        body["tailor_prompt_as_trained"] = True
    if asked.stream:
        # Running totals with every chunk: a caller who leaves midway is still metered.
        body["stream"] = True
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return body


async def _open(
    call: Call, body: dict[str, Any], url: str, stack: AsyncExitStack
) -> httpx.Response:
    try:
        return await _enter(call, body, url, stack)
    except upstream.ContextLengthExceeded:
        if call.asked.answer_tokens() is not None:
            raise
    # Our default was too long for this prompt: null takes what room there is.
    return await _enter(call, body | {"max_tokens": None}, url, stack)


async def _enter(
    call: Call, body: dict[str, Any], url: str, stack: AsyncExitStack
) -> httpx.Response:
    headers = {TENANT_HEADER: call.allowance.tenant_id}
    client, model = call.parts.inference, call.asked.model
    post = upstream.posted(client, url, call.shape, body, model, headers=headers)
    return await stack.enter_async_context(post)


async def _relay(call: Call, first: Json, events: AsyncGenerator[Json]) -> AsyncGenerator[bytes]:
    try:
        event: Json | None = first
        while event is not None:
            if "error" in event:
                raise _error_in(event, call)
            call.meter.count(event)
            for piece in _pieces(call, event):
                yield _sse(piece)
            event = await anext(events, None)
    except (TailorError, BrokenStream) as error:
        call.meter.outcome = "broken"
        yield _sse(payload(error if isinstance(error, TailorError) else upstream.away()))
        return
    call.meter.outcome = "ok"
    yield b"data: [DONE]\n\n"


def _pieces(call: Call, event: Json) -> list[dict[str, Any]]:
    wants_usage = bool(call.asked.stream_options and call.asked.stream_options.include_usage)
    if event.get("choices"):
        piece = answers.chunk(call.shape, call.label, event)
        return [piece | {"usage": None} if wants_usage else piece]
    if wants_usage and event.get("usage"):
        return [answers.usage_chunk(call.shape, call.label, event["usage"])]
    return []


def _error_in(event: Json, call: Call) -> TailorError:
    error = event["error"]
    status = error.get("code") if isinstance(error, dict) else None
    status = status if isinstance(status, int) else 500
    return upstream.error_of(status, event, call.asked.model, call.shape.texts)


def _sse(piece: dict[str, Any]) -> bytes:
    text = json.dumps(piece, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode(errors="replace") + b"\n\n"
