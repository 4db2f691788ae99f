"""The heartbeat thread: renews the lease, carries progress and events, hears a cancel.

All that a worker writes of a held job or comparison goes through here, so a database that is away
costs nothing but time: what has gathered is written with the next heartbeat that succeeds. The
drain has a thread of its own, which waits for nothing else. API (cancel) and scheduler write to the
row, too.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from services.worker.drain import Drain
from shared.db import transaction
from shared.errors import LeaseLost
from shared.telemetry import log_event

T = TypeVar("T")
Progress = dict[str, Any]

log = logging.getLogger(__name__)


class Order(StrEnum):
    """Why the work on a job must end now, although nothing in it went wrong."""

    CANCEL = "cancel"
    PAUSE = "pause"
    DRAIN = "drain"
    LOST = "lost"


class FeedLine(NamedTuple):
    """One line for the job's feed."""

    message: str
    type: str = "message"
    data: dict[str, Any] | None = None


class Held(NamedTuple):
    """What is held, by one attempt, and how its row is written."""

    name: str
    renew: Callable[[Session, Progress | None], str | None]
    """Moves the lease on; returns the state, None when the row is no longer this attempt's."""
    record: Callable[[Session, FeedLine], None]


ORDER_IN = {"cancelling": Order.CANCEL, "pausing": Order.PAUSE}
"""What a state asks of whoever holds the lease."""


def patiently(action: Callable[[], T], pause_seconds: float) -> T:
    """Repeat ``action`` until the database answers; every other error passes through."""
    while True:
        try:
            return action()
        except (DBAPIError, PoolTimeout) as error:
            if not is_away(error):
                raise
            log.warning(
                "database away", extra=log_event("database_away", reason=type(error).__name__)
            )
            time.sleep(pause_seconds)


def is_away(error: DBAPIError | PoolTimeout) -> bool:
    """Say whether the database may take the same statement later: it is away, or a standby."""
    return isinstance(error, OperationalError | PoolTimeout) or error.connection_invalidated


class Lease:
    """One attempt's hold on a row, renewed by a thread of its own between enter and exit.

    ``give`` receives each order once; ``kill`` must end the work at once. ``engine`` is used by
    this lease alone, so no other work can keep a heartbeat waiting for a connection.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        held: Held,
        heartbeat_seconds: float,
        drain: Drain,
        give: Callable[[Order], None],
        kill: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._held = held
        self._interval = heartbeat_seconds
        self._drain = drain
        self._give = give
        self._kill = kill
        self._given: set[Order] = set()
        self._giving = threading.Lock()
        self._progress: Progress | None = None
        self._events: list[FeedLine] = []
        self._given_away = False
        self._writing = threading.Lock()
        self._end, self._ended = socket.socketpair()
        self._threads = [
            threading.Thread(target=self._renew, name="heartbeat", daemon=True),
            threading.Thread(target=self._hear_drain, name="drain", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.close()
        for thread in self._threads:
            thread.join(self._interval)
        self._ended.close()

    @property
    def told(self) -> Progress:
        """The progress that was last given; empty before the first."""
        return self._progress or {}

    def progress(self, progress: Progress) -> None:
        """Let the next heartbeat carry ``progress`` (with its ``step``)."""
        self._progress = progress

    def event(self, event: FeedLine) -> None:
        """Let the next heartbeat carry ``event``."""
        self._events.append(event)

    def confirm(self) -> None:
        """Renew now, writing what has gathered; raises LeaseLost. Waits for an absent database."""
        patiently(self._beat, self._interval)
        if Order.LOST in self._given:
            raise LeaseLost(f"{self._held.name} is no longer ours")

    def write(self, action: Callable[[Session], T]) -> T:
        """Run ``action`` in one transaction, after the events before it; raises LeaseLost.

        Waits for an absent database. A commit whose answer was lost is tried again and then finds
        its guard false: LeaseLost, and either everything was written or nothing.
        """
        return patiently(lambda: self._write(action, last=False), self._interval)

    def finish(self, action: Callable[[Session], T]) -> T:
        """Like ``write``, for the move that gives the job away: no heartbeat follows it."""
        return patiently(lambda: self._write(action, last=True), self._interval)

    def _write(self, action: Callable[[Session], T], *, last: bool) -> T:
        with self._writing:
            events = list(self._events)
            with transaction(self._engine) as session:
                self._record(session, events)
                result = action(session)
            del self._events[: len(events)]
            self._given_away = last
            return result

    def _renew(self) -> None:
        while self._goes_on():
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001  a heart that stops loses a healthy job
                # An SQL error's text may hold what was to be written.
                log.warning(
                    "heartbeat failed",
                    extra=log_event("heartbeat_failed", reason=type(error).__name__),
                )
            if Order.LOST in self._given:
                return

    def _goes_on(self) -> bool:
        """Wait for the next heartbeat; say whether the lease is still held."""
        return not wait([self._ended], self._interval)

    def _hear_drain(self) -> None:
        watched: list[Any] = [self._ended, self._drain]
        ready = wait(watched)
        if self._ended not in ready:
            self._order(Order.DRAIN)

    def _beat(self) -> None:
        with self._writing:
            if self._given_away:
                return
            events = list(self._events)
            with transaction(self._engine) as session:
                state = self._held.renew(session, self._progress)
                if state:
                    self._record(session, events)
            if state:
                del self._events[: len(events)]
        self._obey(state)

    def _record(self, session: Session, events: list[FeedLine]) -> None:
        for event in events:
            self._held.record(session, event)

    def _obey(self, state: str | None) -> None:
        if state is None:
            try:
                self._kill()
            finally:
                # Without the order the worker would wait for ever for a trainer that is no more.
                self._order(Order.LOST)
        elif order := ORDER_IN.get(state):
            self._order(order)

    def _order(self, order: Order) -> None:
        with self._giving:
            known = order in self._given
            self._given.add(order)
        if not known:
            self._give(order)
