"""How the work on a job ends, if not with success: by order, by failure, or because it is lost."""

import logging
import time
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import Literal

from sqlalchemy.orm import Session

from services.worker.failures import AttemptFailed, react
from services.worker.lease import Lease, Order
from services.worker.spec import DoneMessage, ErrorMessage, StoppedMessage, TrainerMessage
from services.worker.trainer import Exited, Trainer
from services.worker.workplace import Workplace
from shared.errors import LeaseLost
from shared.jobs.lease import AFTER_LOST_LEASE, requeue
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State
from shared.jobs.transitions import move
from shared.telemetry import log_event

Inbox = SimpleQueue[TrainerMessage | Exited | Order]
"""All that the one who works on a job waits for."""

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a ring ended."""

    NOTHING = "nothing to claim"
    ENDED = "ended"
    GOES_ON = "queued again"
    LOST = "lost"


class EndedByOrder(Exception):
    """The work must end now, by order."""

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self.order = order


def end_by_order(
    place: Workplace, job: FineTuningJob, lease: Lease, inbox: Inbox, order: Order
) -> Outcome:
    """Cancel, pause or drain: the trainer ends in its grace time, then the job is given away."""
    settings = place.settings
    match order:
        case Order.LOST:
            # Again: the heartbeat's kill found nothing if the process was only being started.
            place.trainer.kill()
            return Outcome.LOST
        case Order.CANCEL:
            end_training(place.trainer, inbox, "abort", settings.abort_grace_seconds)
        case _:
            end_training(place.trainer, inbox, "stop", settings.stop_grace_seconds)
    lease.confirm()
    lease.finish(lambda session: give_away(session, job, order))
    return Outcome.GOES_ON if order is Order.DRAIN else Outcome.ENDED


def give_away(session: Session, job: FineTuningJob, order: Order) -> FineTuningJob:
    """Move the job where the order wants it. Raises LeaseLost."""
    match order:
        case Order.CANCEL:
            return move(
                session, job.id, State.CANCELLED, "The job was cancelled", attempt=job.attempt
            )
        case Order.PAUSE:
            return move(session, job.id, State.PAUSED, "The job is paused", attempt=job.attempt)
        case _:
            # Restarts are the operator's and no fault of the job's: the attempt is given back.
            message = "The worker is shutting down; the job goes on elsewhere"
            return requeue(session, job, message, counted=False)


def end_training(
    trainer: Trainer, inbox: Inbox, word: Literal["stop", "abort"], grace_seconds: float
) -> None:
    """Ask the trainer to end the job; kill it when it has not within ``grace_seconds``.

    A further order meanwhile (a cancelled drain, a lost lease) ends the patience.
    """
    if not trainer.busy:
        return
    trainer.command(word)
    deadline = time.monotonic() + grace_seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            answer = inbox.get(timeout=left)
        except Empty:
            break
        if isinstance(answer, StoppedMessage | DoneMessage):
            return
        if isinstance(answer, ErrorMessage | Exited | Order):
            break
    trainer.kill()


def end_by_failure(
    place: Workplace, job: FineTuningJob, lease: Lease, failure: AttemptFailed
) -> Outcome:
    """Apply the table of failures; a trainer is not used again after an error."""
    place.trainer.kill()
    place.metrics.failures.labels(failure.cause).inc()
    log.warning("attempt failed", extra=log_event("attempt_failed", cause=failure.cause))
    # The counters must know of the last step before the table reads them.
    lease.confirm()
    after = lease.finish(lambda session: react(session, job, failure, place.back_off))
    if after.state == State.QUEUED and after.not_before is None:
        return Outcome.GOES_ON
    return Outcome.ENDED


def end_without_lease(place: Workplace, job: FineTuningJob, lease: Lease) -> Outcome:
    """A guarded update matched no row: another worker owns the job, or its user stopped it first.

    In the second case the job is still ours; finish the cancellation (or the pause) here.
    """
    place.trainer.kill()
    if _finish(job, lease, State.CANCELLING) or _finish(job, lease, State.PAUSING):
        return Outcome.ENDED
    return Outcome.LOST


def _finish(job: FineTuningJob, lease: Lease, stopping: State) -> bool:
    """Move the job to where ``stopping`` leads; False when it is not in that state, or not ours."""
    to = AFTER_LOST_LEASE[stopping]
    message, sources = f"The job is {to}", frozenset({stopping})
    try:
        lease.finish(
            lambda session: move(session, job.id, to, message, attempt=job.attempt, sources=sources)
        )
    except LeaseLost:
        return False
    return True
