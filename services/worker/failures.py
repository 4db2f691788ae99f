"""Why an attempt ended badly, and what follows: a table, and three small rules about counters."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from signal import SIGKILL, SIGTERM

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.worker.spec import RECOMPUTING_DIVISOR, ErrorMessage
from services.worker.trainer import Exited
from shared.errors import LeaseLost
from shared.jobs.lease import fail_as_poisoned, requeue
from shared.jobs.models import FineTuningJob, JobEvent
from shared.jobs.state import State
from shared.jobs.transitions import move

CRASH_LIMIT = 3
"""So many crashes of the trainer without passing the highest step, and the job has failed."""
JITTER = 0.2


class Cause(StrEnum):
    """What went wrong in one attempt."""

    BAD_DATA = "bad_data"
    BAD_CONFIGURATION = "bad_configuration"
    NON_FINITE_LOSS = "non_finite_loss"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    KILLED = "killed"
    CRASH = "crash"
    INVALID_ADAPTER = "invalid_adapter"
    SERVED_DIFFERS = "served_differs"
    ADAPTER_REFUSED = "adapter_refused"
    INFERENCE_AWAY = "inference_away"
    BASE_NOT_SERVED = "base_not_served"


class Reaction(StrEnum):
    """What follows."""

    FAIL = "fail"
    AGAIN_AT_ONCE = "again at once"
    BACK_OFF = "back off"
    HALVE = "halve the micro-batch"
    LATER = "later"
    PAUSE = "pause"


REACTIONS = {
    Cause.BAD_DATA: Reaction.FAIL,
    Cause.BAD_CONFIGURATION: Reaction.FAIL,
    Cause.NON_FINITE_LOSS: Reaction.FAIL,
    Cause.OUT_OF_MEMORY: Reaction.HALVE,
    Cause.DISK_FULL: Reaction.LATER,
    Cause.KILLED: Reaction.AGAIN_AT_ONCE,
    Cause.CRASH: Reaction.BACK_OFF,
    Cause.INVALID_ADAPTER: Reaction.FAIL,
    Cause.SERVED_DIFFERS: Reaction.PAUSE,
    Cause.ADAPTER_REFUSED: Reaction.PAUSE,
    Cause.INFERENCE_AWAY: Reaction.LATER,
    Cause.BASE_NOT_SERVED: Reaction.LATER,
}

CODES = {
    Cause.BAD_DATA: "invalid_training_file",
    Cause.BAD_CONFIGURATION: "invalid_configuration",
}
"""The user's error code, where it is not the cause's own name."""


@dataclass
class AttemptFailed(Exception):
    """An attempt ended badly; ``message`` is safe for the user."""

    cause: Cause
    message: str
    param: str | None = None

    @classmethod
    def of_error(cls, error: ErrorMessage) -> "AttemptFailed":
        """What the trainer itself reported."""
        return cls(Cause(error.code), error.message, error.param)

    @classmethod
    def of_exit(cls, end: Exited) -> "AttemptFailed":
        """What the trainer's end without a word means."""
        if end.returncode == -SIGKILL and end.oom_killed:
            return cls(Cause.OUT_OF_MEMORY, "The system ran out of memory")
        if end.returncode in {-SIGKILL, -SIGTERM}:
            return cls(Cause.KILLED, "The trainer was killed from outside")
        return cls(Cause.CRASH, f"The trainer ended with status {end.returncode}")


@dataclass(frozen=True)
class BackOff:
    """Waiting times after crashes; ``uniform`` draws the jitter (``random.uniform``)."""

    seconds: Sequence[float]
    uniform: Callable[[float, float], float]
    give_up_seconds: float = math.inf
    """A job that waits to be published for so long is paused."""

    def delay(self, crashes: int) -> float:
        """Return the waiting time after the ``crashes``-th crash in a row, ±20 %."""
        base = self.seconds[min(crashes, len(self.seconds)) - 1]
        return base * self.uniform(1 - JITTER, 1 + JITTER)

    def longest(self) -> float:
        """Return the last waiting time, ±20 %."""
        return self.delay(len(self.seconds))


def react(
    session: Session, job: FineTuningJob, failure: AttemptFailed, back_off: BackOff
) -> FineTuningJob:
    """Apply the table to the job's row; ``job.attempt`` fences. Raises LeaseLost."""
    fresh = _current(session, job)
    match REACTIONS[failure.cause]:
        case Reaction.AGAIN_AT_ONCE:
            return requeue(session, fresh, f"{failure.message}; the job goes on at once")
        case Reaction.LATER:
            return _later(session, fresh, failure, back_off)
        case Reaction.HALVE if fresh.micro_batch_divisor < RECOMPUTING_DIVISOR:
            divisor = 2 * fresh.micro_batch_divisor
            message = f"{failure.message}; once more with half the micro-batch"
            if divisor >= RECOMPUTING_DIVISOR:
                message += ", and computing again in the backward pass what is inside a layer"
            return requeue(session, fresh, message, micro_batch_divisor=divisor)
        case Reaction.PAUSE:
            return _pause(session, fresh, failure)
        case Reaction.BACK_OFF:
            return _after_crash(session, fresh, failure, back_off)
        case _:
            return _fail(session, fresh, failure)


def _later(
    session: Session, job: FineTuningJob, failure: AttemptFailed, back_off: BackOff
) -> FineTuningJob:
    if publishing_seconds(session, job) >= back_off.give_up_seconds:
        return _pause(session, job, failure)
    progress = (job.progress or {"step": 0}) | {"waiting": failure.message}
    return requeue(
        session,
        job,
        failure.message,
        delay_seconds=back_off.longest(),
        counted=False,
        progress=progress,
    )


def publishing_seconds(session: Session, job: FineTuningJob) -> float:
    """Return for how long a trained job has been trying to be published, over all its attempts.

    By the database's clock, from the first ``publishing`` since it was last paused (or ever).
    """
    paused = select(func.coalesce(func.max(JobEvent.seq), 0)).where(
        JobEvent.job_id == job.id, JobEvent.state == State.PAUSED
    )
    waited = session.scalar(
        select(func.extract("epoch", func.clock_timestamp() - func.min(JobEvent.created_at))).where(
            JobEvent.job_id == job.id,
            JobEvent.state == State.PUBLISHING,
            JobEvent.seq > paused.scalar_subquery(),
        )
    )
    return float(waited or 0)


def _pause(session: Session, job: FineTuningJob, failure: AttemptFailed) -> FineTuningJob:
    """Keep what was trained and wait for somebody to mend what is in its way."""
    message = (
        f"{failure.message}. The trained adapter is kept: when the cause is mended, "
        f"POST /v1/fine_tuning/jobs/{job.id}/resume publishes it without training again"
    )
    return move(
        session,
        job.id,
        State.PAUSED,
        message,
        attempt=job.attempt,
        level="error",
        error={"code": failure.cause.value, "message": message, "param": None},
        lease_owner=None,
    )


def _current(session: Session, job: FineTuningJob) -> FineTuningJob:
    """Return the job with its counters as they are now: heartbeats change them."""
    fresh = session.get(FineTuningJob, job.id, with_for_update=True)
    if fresh is None or fresh.attempt != job.attempt:
        raise LeaseLost(f"job {job.id} is no longer ours")
    return fresh


def _after_crash(
    session: Session, job: FineTuningJob, failure: AttemptFailed, back_off: BackOff
) -> FineTuningJob:
    crashes = job.crashes + 1
    if crashes >= CRASH_LIMIT:
        reason = f"{crashes} crashes without passing step {job.highest_step}"
        return fail_as_poisoned(session, job, reason, crashes=crashes)
    delay = back_off.delay(crashes)
    message = f"{failure.message}; once more in {delay:.0f} s"
    return requeue(session, job, message, delay_seconds=delay, crashes=crashes)


def _fail(session: Session, job: FineTuningJob, failure: AttemptFailed) -> FineTuningJob:
    code = CODES.get(failure.cause, failure.cause.value)
    return move(
        session,
        job.id,
        State.FAILED,
        failure.message,
        attempt=job.attempt,
        level="error",
        error={"code": code, "message": failure.message, "param": failure.param},
    )
