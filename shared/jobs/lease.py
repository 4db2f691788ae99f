"""The lease: a number that a worker moves and the scheduler watches, and what a lost one leads to.

Every statement carries the attempt. An attempt counts as fruitless from its claim until it passes
the highest step the job ever reached; so it is counted however it ends, also when its worker just
vanished. Given back is one that waited for others (inference, disk space), was drained, or was
publishing: that had its training, and has a time of its own.
"""

from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from shared.jobs.models import FineTuningJob
from shared.jobs.state import LEASED, State
from shared.jobs.transitions import move
from shared.jobs.usage import charge

FRUITLESS_LIMIT = 50
"""So many attempts of any kind in a row without passing the highest step, and the job failed.

Far more than the restarts of a bad week: crashes have a limit of their own (failures.py)."""
RESTLESS_ATTEMPTS = 5
REST_SECONDS = 60.0
"""From so many on, the job lets others go first for a while: it may be what ends its workers."""

AFTER_LOST_LEASE = {State.CANCELLING: State.CANCELLED, State.PAUSING: State.PAUSED}
"""Where a job goes whose holder is gone; from every other leased state back to ``queued``."""


class HeldLease(NamedTuple):
    """A leased job as one scan sees it."""

    job_id: str
    attempt: int
    seq: int


def renew(
    session: Session, job_id: str, attempt: int, progress: dict[str, Any] | None = None
) -> State | None:
    """Move the lease on, store ``progress``; return the state, None when the job is not ours.

    A step beyond the job's highest forgives the crashes and fruitless attempts before it. The time
    since the last renewal is charged to the job's tenant.
    """
    charge(session, job_id, attempt)
    values: dict[str, Any] = {
        "lease_seq": FineTuningJob.lease_seq + 1,
        "lease_charged_at": func.clock_timestamp(),
    }
    if progress is not None:
        passed = FineTuningJob.highest_step < progress["step"]
        values |= {
            "progress": progress,
            "highest_step": func.greatest(FineTuningJob.highest_step, progress["step"]),
            "crashes": case((passed, 0), else_=FineTuningJob.crashes),
            "fruitless_attempts": case((passed, 0), else_=FineTuningJob.fruitless_attempts),
        }
    return session.scalar(
        update(FineTuningJob)
        .where(
            FineTuningJob.id == job_id,
            FineTuningJob.attempt == attempt,
            FineTuningJob.state.in_(LEASED),
        )
        .values(values)
        .returning(FineTuningJob.state)
        .execution_options(synchronize_session=False)
    )


def held_leases(session: Session) -> list[HeldLease]:
    """Return every leased job with its lease number."""
    rows = session.execute(
        select(FineTuningJob.id, FineTuningJob.attempt, FineTuningJob.lease_seq).where(
            FineTuningJob.state.in_(LEASED)
        )
    )
    return [HeldLease(*row) for row in rows]


def expire(session: Session, lease: HeldLease) -> State | None:
    """Take the job from a holder that stopped renewing; None when the lease has moved after all."""
    job = session.scalar(
        select(FineTuningJob)
        .where(
            FineTuningJob.id == lease.job_id,
            FineTuningJob.attempt == lease.attempt,
            FineTuningJob.lease_seq == lease.seq,
            FineTuningJob.state.in_(LEASED),
        )
        .with_for_update()
    )
    if job is None:
        return None
    to = AFTER_LOST_LEASE.get(State(job.state))
    if to is None:
        requeued = requeue(session, job, "The worker was lost; the job goes back to the queue")
        return State(requeued.state)
    move(session, job.id, to, f"The worker was lost; the job is {to}", attempt=job.attempt)
    return to


def requeue(
    session: Session,
    job: FineTuningJob,
    message: str,
    *,
    delay_seconds: float = 0,
    counted: bool = True,
    **values: Any,
) -> FineTuningJob:
    """Send a held job back to the queue, or fail it where nothing has come of too many attempts.

    ``job`` names the attempt that fences the move; its counters are read afresh. An attempt that is
    not ``counted`` (it waited for others, or was drained), or that was publishing a finished
    training, does not count towards FRUITLESS_LIMIT, and never ends the job here.
    """
    fruitless, state = session.execute(
        select(FineTuningJob.fruitless_attempts, FineTuningJob.state).where(
            FineTuningJob.id == job.id
        )
    ).one()
    if not counted or state == State.PUBLISHING:
        values["fruitless_attempts"] = func.greatest(FineTuningJob.fruitless_attempts - 1, 0)
    elif fruitless >= FRUITLESS_LIMIT:
        return fail_as_poisoned(session, job, f"{fruitless} attempts in a row made no progress")
    elif fruitless >= RESTLESS_ATTEMPTS:
        delay_seconds = max(delay_seconds, REST_SECONDS)
    not_before = (
        func.clock_timestamp() + timedelta(seconds=delay_seconds) if delay_seconds else None
    )
    return move(
        session,
        job.id,
        State.QUEUED,
        message,
        attempt=job.attempt,
        level="warn",
        lease_owner=None,
        not_before=not_before,
        **values,
    )


def fail_as_poisoned(
    session: Session, job: FineTuningJob, reason: str, **values: Any
) -> FineTuningJob:
    """End a job that would otherwise go round for ever."""
    message = f"The job was given up: {reason}"
    return move(
        session,
        job.id,
        State.FAILED,
        message,
        attempt=job.attempt,
        level="error",
        error={"code": "poisoned", "message": message, "param": None},
        **values,
    )
