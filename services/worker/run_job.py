"""The worker on one page: claim, hold the lease, train, publish; endings.py has the other ends."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty
from typing import TypeVar

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from services.worker import finished, publish
from services.worker.comparing.orders import Orders
from services.worker.disk import DISK_FULL, is_disk_full
from services.worker.endings import (
    EndedByOrder,
    Inbox,
    Outcome,
    end_by_failure,
    end_by_order,
    end_without_lease,
)
from services.worker.failures import AttemptFailed, Cause
from services.worker.feed import (
    base_event,
    preparing_row,
    progress_row,
    remarks,
    started_text,
    step_event,
    worth_an_event,
)
from services.worker.generated import Generated, generate
from services.worker.lease import FeedLine, Held, Lease, Order, Progress
from services.worker.spec import (
    CheckpointMessage,
    DoneMessage,
    ErrorMessage,
    EvaluationMessage,
    FirstBatchMessage,
    HeldOutQuestions,
    PreparingMessage,
    ProgressMessage,
    ReadyMessage,
    StartedMessage,
    StoppedMessage,
    TrainerMessage,
)
from services.worker.trainer import Exited
from services.worker.workplace import Workplace, make_spec
from shared.db import transaction
from shared.errors import LeaseLost
from shared.jobs.claim import claim_next
from shared.jobs.examples import Examples
from shared.jobs.lease import renew
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State
from shared.jobs.transitions import move, record
from shared.telemetry import log_context, log_event

LISTENING_SECONDS = 0.1
"""Polling interval of ``while_listening``; the most by which it returns late."""
T = TypeVar("T")

log = logging.getLogger(__name__)


def run_next(place: Workplace, queue: str) -> Outcome:
    """Claim the best job of ``queue`` and work on it until it has ended or belongs to others."""
    if place.drain.requested():
        return Outcome.NOTHING
    with transaction(place.engine) as session:
        job = claim_next(
            session,
            queue,
            owner=f"{socket.gethostname()}:{os.getpid()}",
            bases=place.bases(),
        )
    if job is None:
        return Outcome.NOTHING
    with log_context(tenant_id=job.tenant_id, job_id=job.id, attempt=str(job.attempt)):
        log.info("claimed", extra=log_event("job_claimed"))
        outcome = run(place, job)
        if outcome is Outcome.LOST:
            place.metrics.leases_lost.inc()
        log.info("released", extra=log_event("job_released", outcome=outcome))
    return outcome


def run(place: Workplace, job: FineTuningJob) -> Outcome:
    """Train and publish a claimed job; whatever happens, leave the row as the protocol wants it."""
    inbox = Inbox()
    with hold(place, job, inbox) as lease:
        try:
            return work(place, job, lease, inbox)
        except LeaseLost:
            return end_without_lease(place, job, lease)


def work(place: Workplace, job: FineTuningJob, lease: Lease, inbox: Inbox) -> Outcome:
    """Train, publish; or end by order or failure. Raises LeaseLost.

    What an earlier attempt finished is published without training again.
    """
    try:
        done = finished.find(place, job)
        if done is None:
            with place.metrics.training():
                result = train(place, job, lease, inbox)
            done = finished.keep(place, job, result)
        publish_result(place, job, lease, inbox, done)
    except EndedByOrder as ended:
        return end_by_order(place, job, lease, inbox, ended.order)
    except AttemptFailed as failure:
        return end_by_failure(place, job, lease, failure)
    except OSError as error:
        if not is_disk_full(error):
            raise
        return end_by_failure(place, job, lease, AttemptFailed(Cause.DISK_FULL, DISK_FULL))
    return Outcome.ENDED


@contextmanager
def hold(place: Workplace, job: FineTuningJob, inbox: Inbox) -> Iterator[Lease]:
    """Hold the lease; afterwards the trainer is idle and unharmed, or gone."""
    lease = Lease(
        engine=place.engine,
        held=held_job(job),
        heartbeat_seconds=place.settings.heartbeat_seconds,
        drain=place.drain,
        give=inbox.put,
        kill=place.trainer.kill,
    )
    with lease:
        try:
            yield lease
        except BaseException:
            place.trainer.kill()
            raise
    place.trainer.finish_job()


def held_job(job: FineTuningJob) -> Held:
    """Say how the lease of this attempt of a job is renewed, and where its feed is."""

    def renew_job(session: Session, progress: Progress | None) -> State | None:
        return renew(session, job.id, job.attempt, progress)

    def record_line(session: Session, line: FeedLine) -> None:
        record(session, job, line.message, type=line.type, data=line.data)

    return Held(f"job {job.id}", renew_job, record_line)


def train(place: Workplace, job: FineTuningJob, lease: Lease, inbox: Inbox) -> DoneMessage:
    """Run the trainer to its end, passing on what it tells; raises EndedByOrder, AttemptFailed."""
    place.trainer.train(make_spec(place, job), inbox.put)
    patience = place.settings.trainer_start_seconds
    while True:
        message = hear(inbox, patience)
        place.metrics.hear(message)
        if not isinstance(message, ReadyMessage):
            patience = place.settings.trainer_silence_seconds
        match message:
            case StartedMessage() as started:
                lease.write(partial(enter_running, job=job, started=started))
            case FirstBatchMessage() as first:
                lease.write(partial(keep_first_batch, job=job, first=first))
            case DoneMessage() as done:
                return own(done, place.store.attempt(job.id, job.attempt).absolute())
            case Order() as order:
                raise EndedByOrder(order)
            case ErrorMessage() as error:
                raise AttemptFailed.of_error(error)
            case Exited() as end:
                raise AttemptFailed.of_exit(end)
            case StoppedMessage():
                raise AttemptFailed(Cause.CRASH, "The trainer stopped without being asked")
            case news:
                pass_on(news, lease)


def hear(inbox: Inbox, seconds: float) -> TrainerMessage | Exited | Order:
    """Return the next message; a trainer that is silent for ``seconds`` has crashed."""
    try:
        return inbox.get(timeout=seconds)
    except Empty:
        message = f"The trainer gave no sign of life for {seconds:g} s"
        raise AttemptFailed(Cause.CRASH, message) from None


def own(done: DoneMessage, attempt_dir: Path) -> DoneMessage:
    """Return a result that lies in the attempt's folder; any other is another job's."""
    paths = [done.adapter_dir, done.check_file, *(each.path for each in done.checkpoints)]
    paths += [done.questions_file] if done.questions_file else []
    if not all(path.is_relative_to(attempt_dir) for path in paths):
        raise AttemptFailed(Cause.CRASH, "The trainer reported the result of another attempt")
    return done


def pass_on(
    news: ReadyMessage | PreparingMessage | ProgressMessage | EvaluationMessage | CheckpointMessage,
    lease: Lease,
) -> None:
    """Let the next heartbeat carry what the trainer tells."""
    match news:
        case PreparingMessage():
            lease.progress(lease.told | preparing_row(news))
        case ProgressMessage():
            lease.progress(progress_row(news))
            if worth_an_event(news):
                lease.event(step_event(news))
        case EvaluationMessage(step=0):
            lease.event(base_event(news))
        case CheckpointMessage(step=step):
            lease.event(FeedLine(f"Checkpoint created at step {step}", data={"step": step}))


def enter_running(session: Session, job: FineTuningJob, started: StartedMessage) -> None:
    """Say that training begins, or goes on at a checkpoint."""
    move(
        session,
        job.id,
        State.RUNNING,
        started_text(started),
        attempt=job.attempt,
        data=started.model_dump(exclude={"kind"}, exclude_none=True),
        started_at=func.coalesce(FineTuningJob.started_at, func.clock_timestamp()),
    )
    for text in remarks(started):
        record(session, job, text, level="warn")


def keep_first_batch(session: Session, job: FineTuningJob, first: FirstBatchMessage) -> None:
    """Keep what the model saw first; raises LeaseLost."""
    if renew(session, job.id, job.attempt) is None:
        raise LeaseLost(f"job {job.id} is no longer ours")
    examples = Examples(first_batch=first.rows).model_dump(mode="json")
    session.execute(
        update(FineTuningJob).where(FineTuningJob.id == job.id).values(examples=examples)
    )


def publish_result(
    place: Workplace, job: FineTuningJob, lease: Lease, inbox: Inbox, done: DoneMessage
) -> None:
    """Bring the trainer's result into the world; raises EndedByOrder, AttemptFailed, LeaseLost."""
    settings, entry = place.settings, place.catalog.get(job.base_model)
    place.trainer.finish_job()  # from here on its death is nobody's concern
    lease.confirm()
    lease.write(
        lambda session: move(
            session, job.id, State.PUBLISHING, "Publishing the model", attempt=job.attempt
        )
    )
    ready = publish.prepare(place.store, job, entry, done, confirm=lease.confirm)

    def check() -> dict[str, float]:
        with place.inference(entry.name, ready.adapter_id) as inference:
            return publish.check(ready, inference, entry)

    distances = publish.await_served(
        lambda: while_listening(inbox, check),
        wait=lambda: wait_for_order(inbox, settings.publish_retry_seconds),
        deadline=time.monotonic() + settings.publish_wait_seconds,
        clock=time.monotonic,
    )
    generated = ask_held_out(place, job, inbox, ready)
    lease.finish(lambda session: publish.commit(session, job, ready, distances, generated))


def ask_held_out(
    place: Workplace, job: FineTuningJob, inbox: Inbox, ready: publish.Publication
) -> Generated | None:
    """Ask the served adapter what it was not trained on; raises EndedByOrder."""
    if ready.done.questions_file is None:
        return None
    held_out = HeldOutQuestions.model_validate_json(ready.done.questions_file.read_bytes())
    orders = Orders()
    ask = partial(
        generate,
        place.inference_for(job.tenant_id, job.base_model, salt_key=ready.adapter_id),
        ready.adapter_id,
        held_out,
        seconds=place.settings.publish_ask_seconds,
        seed=job.seed,
        orders=orders,
    )
    try:
        return while_listening(inbox, ask)
    except EndedByOrder as ended:
        orders.give(ended.order)  # nobody waits for the answers any more
        raise


def while_listening(inbox: Inbox, action: Callable[[], T]) -> T:
    """Return what ``action`` returns; an order abandons it, in its thread, by EndedByOrder."""
    answer: Future[T] = Future()

    def act() -> None:
        try:
            answer.set_result(action())
        except Exception as error:  # noqa: BLE001  it is raised again where the answer is read
            answer.set_exception(error)

    # A daemon, unlike an executor's threads: an abandoned request keeps no worker from exiting.
    threading.Thread(target=act, name="while-listening", daemon=True).start()
    while not answer.done():
        wait_for_order(inbox, LISTENING_SECONDS)
    return answer.result()


def wait_for_order(inbox: Inbox, seconds: float) -> None:
    """Wait; an order ends the waiting by EndedByOrder."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = inbox.get(timeout=left)
        except Empty:
            return
        if isinstance(message, Order):
            raise EndedByOrder(message)
