"""The asyncio rim of admission: requests wait here for a place, run, and can be put out."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from services.inference.admission import Admission, Ticket
from shared.clock import Clock
from shared.errors import NotFound, UpstreamUnavailable

Signal = asyncio.Future[None]
"""Something that happens once."""


def signal() -> Signal:
    """Return a signal that has not happened."""
    return asyncio.get_running_loop().create_future()


@dataclass
class Visit:
    """One request at the door or behind it."""

    ticket: Ticket
    turn: Signal = field(default_factory=signal)
    """It may run; or it fails, with the reason."""
    abort: Signal = field(default_factory=signal)
    """It must end now: its adapter is being evicted."""
    ended: Signal = field(default_factory=signal)


class Door:
    """Admits the requests of adapters by policy, and shuts for adapters that are being evicted."""

    def __init__(
        self, policy: Admission, clock: Clock, max_waiting: int, prefetch: Callable[[str], None]
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._max_waiting = max_waiting
        self._prefetch = prefetch
        self._visits: dict[Ticket, Visit] = {}
        self._refused: set[str] = set()

    async def run(
        self, adapter: str, left: Signal, work: Callable[[Signal], Awaitable[None]]
    ) -> None:
        """Wait for a place, unless the client has ``left``, and run ``work(abort)``.

        Raises NotFound when the adapter is (or meanwhile gets) evicted, UpstreamUnavailable when
        too many wait already.
        """
        if adapter in self._refused:
            raise _gone(adapter)
        if len(self._policy.waiting) >= self._max_waiting:
            raise UpstreamUnavailable("too many requests are waiting for a model")
        ticket = self._policy.arrive(adapter)
        visit = self._visits[ticket] = Visit(ticket)
        try:
            self._admit()
            await asyncio.wait({visit.turn, left}, return_when=asyncio.FIRST_COMPLETED)
            if visit.turn.done():
                visit.turn.result()
                await work(visit.abort)
        finally:
            del self._visits[ticket]
            visit.ended.set_result(None)
            self._policy.leave(ticket)
            self._admit()
        if visit.abort.done():
            raise _gone(adapter)

    async def shut(self, adapter: str, drain_seconds: float) -> None:
        """Refuse the adapter from now on; let its running requests end, then abort them.

        Raises UpstreamUnavailable when one of them runs on all the same.
        """
        self._refused.add(adapter)
        visits = [visit for visit in self._visits.values() if visit.ticket.adapter == adapter]
        for visit in visits:
            if not visit.turn.done():
                visit.turn.set_exception(_gone(adapter))
        if await _all_ended(visits, drain_seconds):
            return
        for visit in visits:
            if not visit.abort.done():
                visit.abort.set_result(None)
        if not await _all_ended(visits, drain_seconds):
            raise UpstreamUnavailable("a request of this adapter cannot be ended")

    def _admit(self) -> None:
        for ticket in self._policy.admit(self._clock()):
            turn = self._visits[ticket].turn
            if not turn.done():
                turn.set_result(None)
        upcoming = self._policy.next_adapter()
        if upcoming is not None and upcoming not in self._refused:
            self._prefetch(upcoming)


async def _all_ended(visits: list[Visit], seconds: float) -> bool:
    pending = {visit.ended for visit in visits if not visit.ended.done()}
    return not pending or not (await asyncio.wait(pending, timeout=seconds))[1]


def _gone(adapter: str) -> NotFound:
    return NotFound(f"The model `{adapter}` does not exist.", param="model", code="model_not_found")
