"""Takes jobs and comparisons from workers that stopped renewing: it watches the lease numbers.

No clocks of two machines are compared: a lease is expired when its number stood still during a
whole window of the scheduler's own monotonic time, over an unbroken series of successful scans. So
neither a database outage nor a stepped clock nor a scheduler that slept takes a healthy job.
"""

import logging
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

from prometheus_client import Counter
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from shared.clock import Clock
from shared.comparisons import lease as comparisons
from shared.db import transaction
from shared.jobs import lease as jobs
from shared.jobs.lease import HeldLease
from shared.telemetry import log_event

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Hashable)


class Leased(NamedTuple):
    """What is leased, and how its table says so."""

    name: str
    held: Callable[[Session], list[HeldLease]]
    expire: Callable[[Session, HeldLease], str | None]


JOBS = Leased("jobs", jobs.held_leases, jobs.expire)
COMPARISONS = Leased("comparisons", comparisons.held_leases, comparisons.expire)


class LeaseWatch(Generic[T]):
    """The observation, as plain data; times are the caller's.

    A ``T`` is a lease with its number: one that is renewed is another.
    """

    def __init__(self, window_seconds: float, gap_seconds: float) -> None:
        self._window = window_seconds
        self._gap = gap_seconds
        self._since: dict[T, float] = {}
        self._last: float | None = None

    def scanned(self, began: float, ended: float, leases: Iterable[T]) -> list[T]:
        """Take in one successful scan; return the leases that are expired by now.

        A lease was first seen at the latest when its scan ended, and is surely still unmoved when a
        later scan begins: only the time between counts.
        """
        if self._last is None or ended - self._last > self._gap:
            self._since = {}
        self._last = ended
        self._since = {lease: self._since.get(lease, ended) for lease in leases}
        return [lease for lease, since in self._since.items() if began - since >= self._window]

    def failed(self) -> None:
        """Take in a failed scan: all windows start anew."""
        self._last = None

    def scan(self, engine: Engine, clock: Clock, held: Callable[[Session], list[T]]) -> list[T]:
        """Scan once; return the leases that are expired by now. Raises SQLAlchemy's errors."""
        began = clock()
        try:
            with transaction(engine) as session:
                leases = held(session)
        except Exception:
            self.failed()
            raise
        return self.scanned(began, clock(), leases)


class Reap:
    """The duty."""

    def __init__(
        self,
        engine: Engine,
        watch: LeaseWatch[HeldLease],
        clock: Clock,
        expired: Counter,
        kind: Leased = JOBS,
    ) -> None:
        self.name = f"reap_{kind.name}"
        self._engine = engine
        self._watch = watch
        self._clock = clock
        self._expired = expired
        self._kind = kind

    def run(self) -> None:
        """Scan, and expire what has stood still for a whole window."""
        for lease in self._watch.scan(self._engine, self._clock, self._kind.held):
            with transaction(self._engine) as session:
                to = self._kind.expire(session, lease)
            if to:
                self._expired.inc()
                data = {"job_id": lease.job_id, "attempt": lease.attempt, "state": to}
                log.warning("lease expired", extra=log_event("lease_expired", **data))
