"""The one door through which a job changes state.

Each move is ONE guarded UPDATE plus one event row in the same transaction. Zero rows changed means
somebody else owns the job: LeaseLost, keep nothing.
"""

from typing import Any

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from shared.errors import LeaseLost
from shared.ids import new_id
from shared.jobs.models import FineTuningJob, JobEvent
from shared.jobs.state import SOURCES, TERMINAL, State


def move(
    session: Session,
    job_id: str,
    to: State,
    message: str,
    *,
    attempt: int | None = None,
    new_attempt: bool = False,
    sources: frozenset[State] | None = None,
    level: str = "info",
    data: dict[str, Any] | None = None,
    **values: Any,
) -> FineTuningJob:
    """Move a job to ``to`` and record the event; return the job as it now is.

    ``attempt`` fences a worker's move; ``new_attempt`` (a claim) opens the next one; ``sources``
    narrows the table's; ``values`` are further columns of the job (SQL expressions allowed). Raises
    LeaseLost when the guard finds no row, and ValueError when ``sources`` names a state the table
    does not allow.
    """
    allowed = SOURCES[to]
    if sources is not None and not sources <= allowed:
        raise ValueError(f"{to} cannot be entered from {sorted(sources - allowed)}")
    guard = [FineTuningJob.id == job_id, FineTuningJob.state.in_(sources or allowed)]
    if attempt is not None:
        guard.append(FineTuningJob.attempt == attempt)
    if new_attempt:
        values["attempt"] = FineTuningJob.attempt + 1
    if to in TERMINAL:
        values.setdefault("finished_at", func.clock_timestamp())
    job = session.scalar(
        update(FineTuningJob)
        .where(*guard)
        .values(state=to, state_changed_at=func.clock_timestamp(), **values)
        .returning(FineTuningJob)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if job is None:
        raise LeaseLost(f"job {job_id} is no longer ours to move to {to}")
    record(session, job, message, state=to, level=level, data=data)
    return job


def record(
    session: Session,
    job: FineTuningJob,
    message: str,
    *,
    type: str = "message",  # noqa: A002  OpenAI's field name
    state: State | None = None,
    level: str = "info",
    data: dict[str, Any] | None = None,
) -> None:
    """Add one event to a job's feed; never a row's text."""
    session.add(
        JobEvent(
            id=new_id("ftevent-"),
            tenant_id=job.tenant_id,
            job_id=job.id,
            attempt=job.attempt,
            state=state,
            level=level,
            type=type,
            message=message,
            data=data,
        )
    )
    session.flush()
