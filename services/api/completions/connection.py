"""Work for a caller ends when the caller leaves: nobody reads the answer, the engine is wanted."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

import anyio
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from shared.errors import TailorError
from shared.telemetry import log_event

T = TypeVar("T")

log = logging.getLogger(__name__)


async def while_connected(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Return what ``work`` returns; cancel it and raise ClientDisconnect when the caller leaves."""
    outcome: list[T | TailorError] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_on_disconnect, request.receive, group.cancel_scope)
        try:
            outcome.append(await work())
        except TailorError as error:
            # Carried out by hand: a task group would wrap it into an exception group.
            outcome.append(error)
        group.cancel_scope.cancel()
    if not outcome:
        raise ClientDisconnect
    if isinstance(outcome[0], TailorError):
        raise outcome[0]
    return outcome[0]


class EventStream(StreamingResponse):
    """A streamed answer that notices at once when its reader leaves, even between two tokens.

    It ends, too, when its reader takes nothing for ``stall_seconds`` although there is something.
    """

    def __init__(
        self, events: AsyncGenerator[bytes], resources: AsyncExitStack, stall_seconds: float
    ) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self._events = events
        self._resources = resources
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events; whatever happens, close them and what they came from."""
        async with self._resources, anyio.create_task_group() as group:
            group.start_soon(_cancel_on_disconnect, receive, group.cancel_scope)
            try:
                async with aclosing(self._events):
                    await self.stream_response(self._watched(send))
            except TimeoutError:
                log.info("a stream was ended: nobody reads it", extra=log_event("stream_stalled"))
            except OSError:
                pass  # uvicorn says by it that the reader has left
            group.cancel_scope.cancel()

    def _watched(self, send: Send) -> Send:
        async def watched(message: Message) -> None:
            # Returns at once until the buffers on the way to the reader are full.
            with anyio.fail_after(self._stall_seconds):
                await send(message)

        return watched


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
