"""Jobs as they change: server-sent events, read from the database once a second for all streams.

(https://html.spec.whatwg.org/multipage/server-sent-events.html) However many streams are open, a
look is two queries; what has changed is encoded once and handed to everybody who follows it.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field

from anyio import to_thread
from sqlalchemy import Engine, and_, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from services.api.jobs.schemas import EventOut, JobOut
from shared.adapters.models import Adapter
from shared.clock import now
from shared.db import transaction
from shared.errors import RateLimited
from shared.jobs.models import FineTuningJob, JobEvent
from shared.jobs.queue_order import read_places
from shared.jobs.state import TERMINAL, State
from shared.telemetry import log_event

LOOK_SECONDS = 1.0
ALIVE_SECONDS = 15.0
"""A comment goes out after so long a silence, so that nobody between takes the stream for dead."""
STREAM_SECONDS = 600.0
"""Then a stream is closed; who goes on following shows a key again."""
MOST_OF_A_TENANT = 300
"""Streams that one tenant may have open in this process."""
KEPT = 1000
"""Frames of a job's events that are kept for who is slow to take them."""
_logger = logging.getLogger(__name__)


def frame(kind: str, data: str, id_: str = "") -> bytes:
    """Return one server-sent event."""
    return (f"id: {id_}\n" if id_ else "").encode() + f"event: {kind}\ndata: {data}\n\n".encode()


class Places:
    """Places in the queue, read at most once in LOOK_SECONDS."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._read_at, self._places = float("-inf"), dict[str, int]()

    def of(self, jobs: Iterable[FineTuningJob]) -> Mapping[str, int]:
        """Return the places of those of ``jobs`` that are queued, at least; blocks for a query."""
        if not any(job.state == State.QUEUED for job in jobs):
            return {}
        if time.monotonic() - self._read_at > LOOK_SECONDS:
            with transaction(self._engine) as session:
                self._places = read_places(session)
            self._read_at = time.monotonic()
        return self._places


@dataclass
class _Followed:
    """One job that somebody follows."""

    tenant_id: str
    seq: int
    """Of the newest event that has been looked at."""
    followers: int = 0
    job: bytes = b""
    """Its frame, as it was last seen."""
    compared: str = ""
    """What of it is compared with the next look."""
    version: int = 0
    """Grows with each change of the job."""
    ended: bool = False
    events: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Frames since somebody began to follow, with their numbers."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once, at the next change; then there is another one."""

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class LiveJobs:
    """All open streams of this process; used from its event loop."""

    def __init__(self, engine: Engine, places: Places) -> None:
        self._engine, self._places = engine, places
        self._jobs: dict[str, _Followed] = {}
        self._open: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None

    def room(self, tenant_id: str) -> None:
        """Raise RateLimited where the tenant has as many streams open as it may."""
        if self._open[tenant_id] >= MOST_OF_A_TENANT:
            raise RateLimited(f"At most {MOST_OF_A_TENANT} streams of jobs may be open at a time.")

    async def follow(self, tenant_id: str, job_id: str, after: str | None) -> AsyncIterator[bytes]:
        """Yield a job of the tenant's: its events since ``after``, itself, then what comes.

        Without ``after`` only events that are still to come. Ends with the job.
        """
        self._open[tenant_id] += 1
        followed: _Followed | None = None
        try:
            missed, seq = await to_thread.run_sync(self._missed, job_id, after)
            followed = self._jobs.setdefault(job_id, _Followed(tenant_id, seq))
            followed.followers += 1
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_while_followed())
            for each in missed:
                yield each
            async for each in _changes(followed, seq):
                yield each
        finally:
            self._open[tenant_id] -= 1
            if followed is not None:
                followed.followers -= 1
                if not followed.followers:
                    del self._jobs[job_id]

    def _missed(self, job_id: str, after: str | None) -> tuple[list[bytes], int]:
        """Return the frames of the events since ``after``, and the newest one's number."""
        with transaction(self._engine) as session:
            of_job = select(JobEvent).where(JobEvent.job_id == job_id)
            newest = session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job_id))
            if after is None:
                return [], newest or 0
            known = select(JobEvent.seq).where(JobEvent.job_id == job_id, JobEvent.id == after)
            later = of_job.where(JobEvent.seq > func.coalesce(known.scalar_subquery(), 0))
            rows = session.scalars(later.order_by(JobEvent.seq)).all()
            return [_of_event(row) for row in rows], rows[-1].seq if rows else newest or 0

    async def _look_while_followed(self) -> None:
        while self._jobs:
            try:
                jobs, events, places = await to_thread.run_sync(
                    self._read, {job_id: each.seq for job_id, each in self._jobs.items()}
                )
            except SQLAlchemyError as error:
                data = {"error": type(error).__name__}
                _logger.warning("jobs could not be read", extra=log_event("live_failed", **data))
            else:
                self._tell(jobs, events, places)
            await asyncio.sleep(LOOK_SECONDS)
        self._looking = None

    def _read(
        self, seqs: Mapping[str, int]
    ) -> tuple[list[tuple[FineTuningJob, str | None]], list[JobEvent], Mapping[str, int]]:
        """Read the jobs with the names of their models, their newer events, and places."""
        newer = [
            and_(JobEvent.job_id == job_id, JobEvent.seq > seq) for job_id, seq in seqs.items()
        ]
        with transaction(self._engine) as session:
            named = (
                select(FineTuningJob, Adapter.model)
                .outerjoin(
                    Adapter,
                    and_(
                        Adapter.job_id == FineTuningJob.id,
                        Adapter.kind == "final",
                        Adapter.deleted_at.is_(None),
                    ),
                )
                .where(FineTuningJob.id.in_(seqs))
            )
            jobs: list[tuple[FineTuningJob, str | None]] = [
                (job, model) for job, model in session.execute(named)
            ]
            events = list(
                session.scalars(select(JobEvent).where(or_(*newer)).order_by(JobEvent.seq))
            )
        return jobs, events, self._places.of(job for job, _ in jobs)

    def _tell(
        self,
        jobs: list[tuple[FineTuningJob, str | None]],
        events: list[JobEvent],
        places: Mapping[str, int],
    ) -> None:
        """Note what has changed, and wake who follows it."""
        woken: set[str] = set()
        for row in events:
            if followed := self._jobs.get(row.job_id):
                followed.seq = row.seq
                followed.events.append((row.seq, _of_event(row)))
                woken.add(row.job_id)
        for job, model in jobs:
            followed = self._jobs.get(job.id)
            if followed is None:
                continue
            shown = JobOut.of(job, model, now(), places.get(job.id))
            compared = shown.model_dump_json(exclude={"estimated_finish"})
            if compared != followed.compared:
                followed.compared, followed.version = compared, followed.version + 1
                followed.job = frame("job", shown.model_dump_json())
                followed.ended = job.state in TERMINAL
                woken.add(job.id)
        for job_id in woken:
            self._jobs[job_id].wake()


async def _changes(followed: _Followed, seq: int) -> AsyncIterator[bytes]:
    """Yield the job at each of its changes, and its events after number ``seq``."""
    version, closes = 0, time.monotonic() + STREAM_SECONDS
    while time.monotonic() < closes:
        changed = followed.changed
        for number, each in list(followed.events):
            if number > seq:
                seq = number
                yield each
        if followed.version > version:
            version = followed.version
            yield followed.job
        if followed.ended and followed.changed is changed:
            yield frame("end", "{}")
            return
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                await changed.wait()
        except TimeoutError:
            yield b": alive\n\n"


def _of_event(row: JobEvent) -> bytes:
    return frame("event", EventOut.of(row).model_dump_json(), row.id)
