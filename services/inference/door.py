"""The asyncio rim of admission: requests wait here for their turn, run, and can be put out."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from services.inference.admission import Admission, Ticket
from shared.clock import Clock
from shared.errors import NotFound, RateLimited, UpstreamUnavailable

OneShot = asyncio.Future[None]
"""Something that happens once."""
Work = Callable[[OneShot, int], Awaitable[None]]
"""Runs a request; gets what orders its end, and what its tenant holds: the more, the less urgent.
"""
_running_loop = asyncio.get_running_loop


def one_shot() -> OneShot:
    """Return what has not happened yet."""
    return _running_loop().create_future()


@dataclass
class Visit:
    """One request at the door or behind it."""

    ticket: Ticket
    turn: asyncio.Future[int] = field(default_factory=lambda: _running_loop().create_future())
    """It may run: what its tenant holds with it; or it fails, with the reason."""
    abort: OneShot = field(default_factory=one_shot)
    """It must end now: its adapter is being evicted."""
    ended: OneShot = field(default_factory=one_shot)


@dataclass(frozen=True)
class Guest:
    """What a request says of itself at the door."""

    tenant: str
    adapter: str | None
    """None for the base model."""
    slots: int


class Door:
    """Admits requests by policy, and shuts for adapters that are being evicted."""

    def __init__(
        self, policy: Admission, clock: Clock, max_waiting: int, prefetch: Callable[[str], None]
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._max_waiting = max_waiting
        self._prefetch = prefetch
        self._visits: dict[Ticket, Visit] = {}
        self._refused: set[str] = set()

    async def run(self, guest: Guest, left: OneShot, work: Work) -> None:
        """Wait for a turn, unless the client has ``left``, and run ``work``.

        Raises NotFound when the adapter is (or meanwhile gets) evicted, RateLimited when too many
        requests of the tenant are here already.
        """
        if guest.adapter in self._refused:
            raise _gone(guest.adapter)
        if self._policy.present(guest.tenant) >= self._max_waiting:
            raise RateLimited("too many requests of this tenant are waiting")
        ticket = self._policy.arrive(guest.tenant, guest.adapter, guest.slots)
        visit = self._visits[ticket] = Visit(ticket)
        try:
            self._admit()
            waited: set[asyncio.Future[Any]] = {visit.turn, left}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if visit.turn.done():
                await work(visit.abort, visit.turn.result())
        finally:
            del self._visits[ticket]
            visit.ended.set_result(None)
            self._policy.leave(ticket, self._clock())
            self._admit()
        if visit.abort.done():
            raise _gone(guest.adapter)

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
                turn.set_result(self._policy.held(ticket.tenant))
        upcoming = self._policy.next_adapter()
        if upcoming is not None and upcoming not in self._refused:
            self._prefetch(upcoming)


async def _all_ended(visits: list[Visit], seconds: float) -> bool:
    pending = {visit.ended for visit in visits if not visit.ended.done()}
    return not pending or not (await asyncio.wait(pending, timeout=seconds))[1]


def _gone(adapter: str | None) -> NotFound:
    return NotFound(f"The model `{adapter}` does not exist.", param="model", code="model_not_found")
