"""Which inference process a request goes to, and which next when that one is away.

A request may go on elsewhere as long as nothing of its answer has left: so what begins an answer
(the first event of a stream, the whole of one that is not streamed) is tried on one process after
the other. What a process answers, a refusal among it, is the answer: only one that does not answer
is passed over.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from services.api.completions import upstream
from shared.errors import UpstreamUnavailable
from shared.replicas.directory import Directory

T = TypeVar("T")
Begin = Callable[[str, AsyncExitStack], Awaitable[T]]
"""Begins an answer at an address; what it has opened is closed with the stack."""


@asynccontextmanager
async def begun(
    directory: Directory, base_model: str, adapter: str | None, begin: Begin[T]
) -> AsyncIterator[T]:
    """Yield what the first process that answers gives; leaving closes what it has opened.

    ``adapter``: None for the base model itself. Raises UpstreamUnavailable when none answers, and
    what else ``begin`` raises.
    """
    router = directory.router(base_model)
    known = directory.last_known(base_model)
    in_turn = router.order(adapter, known.answering, time.monotonic())
    for replica in (*in_turn, *known.silent):
        async with AsyncExitStack() as stack:
            router.began(replica.id, adapter, time.monotonic())
            stack.callback(lambda held: router.ended(held, adapter, time.monotonic()), replica.id)
            try:
                answer = await begin(replica.url, stack)
            except UpstreamUnavailable:
                router.failed(replica.id, time.monotonic())
                continue
            yield answer
            return
    raise upstream.away()
