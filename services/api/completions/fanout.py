"""A request with several prompts goes to the inference service as one request for each prompt.

So each piece waits for its own turn, and no request is larger than one prompt's answers. Put
together, the pieces read like one answer: choices in the order of the prompts, usage added up.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from shared.errors import TailorError
from shared.inference import BrokenStream

AT_ONCE = 16
"""Pieces of one request that wait or run at the same time; the rest has not been sent."""
Json = Mapping[str, Any]
T = TypeVar("T")


def pieces(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one body for each prompt; a chat, or a single prompt, is its own only piece."""
    prompts = body.get("prompt")
    if not isinstance(prompts, list) or len(prompts) == 1:
        return [body]
    return [body | {"prompt": prompt} for prompt in prompts]


def numbered(found: Json, piece: int, n: int) -> dict[str, Any]:
    """Return an answer or event of one piece with its choices numbered as in the whole."""
    choices = found.get("choices") or []
    return {**found, "choices": [c | {"index": piece * n + c["index"]} for c in choices]}


def joined(answers: Sequence[Json]) -> dict[str, Any]:
    """Put complete, numbered answers together."""
    choices = [choice for answer in answers for choice in answer["choices"]]
    usage = sum((_counts(answer) for answer in answers), Counter[str]())
    return {"choices": choices, "usage": dict(usage)}


async def gathered(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Return all results in order; the first error, or leaving, ends all the work."""
    if len(works) == 1:
        return [await works[0]()]
    gate = asyncio.Semaphore(AT_ONCE)

    async def run(work: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await work()

    tasks = [asyncio.ensure_future(run(work)) for work in works]
    async with _ended(tasks):
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        return [task.result() for task in tasks]


async def merged(sources: Sequence[AsyncGenerator[dict[str, Any]]]) -> AsyncGenerator[Json]:
    """Yield numbered events as they come, and at the end one with the usage of all.

    Raises what a source raises.
    """
    if len(sources) == 1:
        async with aclosing(sources[0]) as events:
            async for event in events:
                yield event
        return
    async with aclosing(_interleaved(sources)) as merged_events:
        async for piece in merged_events:
            yield piece


async def _interleaved(sources: Sequence[AsyncGenerator[dict[str, Any]]]) -> AsyncGenerator[Json]:
    gate = asyncio.Semaphore(AT_ONCE)
    ready: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue(AT_ONCE)

    async def read(source: AsyncGenerator[dict[str, Any]]) -> None:
        try:
            async with gate, aclosing(source):
                async for event in source:
                    await ready.put(event)
            await ready.put(None)
        except (TailorError, BrokenStream) as error:
            await ready.put(error)

    tasks = [asyncio.ensure_future(read(source)) for source in sources]
    usage: Counter[str] = Counter()
    running = len(tasks)
    async with _ended(tasks):
        while running:
            event = await ready.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                running -= 1
            elif event.get("choices") or "error" in event:
                yield event
            else:
                usage += _counts(event)
    yield {"choices": [], "usage": dict(usage)}


@asynccontextmanager
async def _ended(tasks: Sequence[asyncio.Future[Any]]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        # Once only, and without gather, which would do it again: a second cancellation would cut
        # short the closing of the connection that the first one has begun.
        for task in tasks:
            task.add_done_callback(_looked_at)
            task.cancel()
        await asyncio.wait(tasks)


def _looked_at(task: asyncio.Future[Any]) -> None:
    """Take note of how a task ended, or asyncio would report an error that nobody asked for."""
    if not task.cancelled():
        task.exception()


def _counts(found: Json) -> Counter[str]:
    usage = found.get("usage") or {}
    return Counter({name: count for name, count in usage.items() if isinstance(count, int)})
