"""An answer on its way to a client that may read slower than the engine writes.

The engine's side runs ahead, so that a request gives its slots back when the engine is done with
it, and not when the last byte was read.
"""

import asyncio

from starlette.types import Message, Send

MAX_BYTES = 4 * 2**20
"""Kept of one answer; beyond that its writer waits for the client after all."""


class Outbox:
    """The messages of one answer, in order."""

    def __init__(self, send: Send, max_bytes: int = MAX_BYTES) -> None:
        self._send = send
        self._max_bytes = float(max_bytes)
        self._bytes = 0
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._sending = asyncio.ensure_future(self._deliver())

    async def put(self, message: Message) -> None:
        """Take a message; wait only while too much is kept already."""
        await self._room.wait()
        self._count(len(message.get("body", b"")))
        self._messages.put_nowait(message)

    async def finish(self) -> None:
        """Return when everything has been sent."""
        self._messages.put_nowait(None)
        await self._sending

    def close(self) -> None:
        """Throw away what has not been sent."""
        self._sending.cancel()

    async def _deliver(self) -> None:
        try:
            while (message := await self._messages.get()) is not None:
                await self._send(message)
                self._count(-len(message.get("body", b"")))
        finally:
            # Nobody reads any more: whoever writes shall not wait for that.
            self._max_bytes = float("inf")
            self._room.set()

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes < self._max_bytes:
            self._room.set()
        else:
            self._room.clear()
