"""Rules for jobs: what may be created, how a repeat is recognised, how one is cancelled."""

import secrets
from collections.abc import Iterable, Sequence

from sqlalchemy import null
from sqlalchemy.orm import Session

from services.api.files.service import fine_tuning_file
from services.api.jobs.schemas import JobIn, Lora, checkpoint_step
from services.api.models.service import callable_adapters
from services.api.pagination import page
from services.api.repeats import Repeat, digest_of, find_earlier, refuse_a_long_queue
from shared.adapters.models import Adapter
from shared.catalog import BaseModelEntry
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ids import new_id
from shared.jobs.hyperparameters import Hyperparameters, resolve
from shared.jobs.models import FineTuningJob, JobEvent
from shared.jobs.state import SOURCES, State
from shared.jobs.transitions import move, record
from shared.tenants.models import owned_by

NOT_STARTED = frozenset({State.VALIDATING, State.QUEUED, State.PAUSED})
"""No worker holds the job: cancelling ends it at once."""


def create(
    session: Session,
    tenant_id: str,
    asked: JobIn,
    base: BaseModelEntry,
    repeat: Repeat,
    *,
    most_queued: int,
) -> FineTuningJob:
    """Insert a job with its first events, or return the one that this request already made.

    Raises LimitReached when ``most_queued`` of the tenant's jobs wait already.
    """
    check_supported(asked)
    digest = digest_of(asked)
    earlier = find_earlier(session, tenant_id, FineTuningJob, digest, repeat)
    if earlier is not None:
        return earlier
    refuse_a_long_queue(session, tenant_id, FineTuningJob, NOT_STARTED, most_queued)
    training = fine_tuning_file(session, tenant_id, asked.training_file, "training_file")
    if asked.validation_file is not None:
        fine_tuning_file(session, tenant_id, asked.validation_file, "validation_file")
    rows = training.report["rows"]
    job = FineTuningJob(
        id=new_id("ftjob-"),
        tenant_id=tenant_id,
        base_model=base.name,
        training_file_id=asked.training_file,
        validation_file_id=asked.validation_file,
        suffix=asked.suffix,
        seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        user_metadata=null() if asked.metadata is None else asked.metadata,
        hyperparameters=numbers_for(asked, rows, base).model_dump(),
        idempotency_key=repeat.key,
        request_sha256=digest,
        state=State.VALIDATING,
    )
    session.add(job)
    session.flush()
    session.refresh(job)
    _start(session, job)
    return job


def jobs(
    session: Session,
    tenant_id: str,
    metadata: dict[str, str] | None,
    after: str | None,
    limit: int,
) -> tuple[Sequence[FineTuningJob], bool]:
    """Return a page of the tenant's jobs, newest first, and whether there are more.

    Only those that have all of ``metadata``; None: only those without any.
    """
    query = owned_by(tenant_id, FineTuningJob)
    if metadata is None:
        query = query.where(FineTuningJob.user_metadata.is_(None))
    elif metadata:
        query = query.where(FineTuningJob.user_metadata.contains(metadata))
    return page(session, query, FineTuningJob.id, after=after, limit=limit)


def find(session: Session, tenant_id: str, job_id: str, *, lock: bool = False) -> FineTuningJob:
    """Return one job; raise NotFound."""
    query = owned_by(tenant_id, FineTuningJob).where(FineTuningJob.id == job_id)
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None:
        raise NotFound(f"Could not find fine tune: {job_id}", "fine_tuning_job_id")
    return job


def cancel(session: Session, tenant_id: str, job_id: str) -> FineTuningJob:
    """End a waiting job now; ask the worker to end a running one; raise Conflict for an ended one.

    Asking again while the worker is still ending the job changes nothing.
    """
    job = find(session, tenant_id, job_id, lock=True)
    state = State(job.state)
    if state == State.CANCELLING:
        return job
    if state in NOT_STARTED:
        return move(session, job_id, State.CANCELLED, "The job has been cancelled")
    if state in SOURCES[State.CANCELLING]:
        message = "Cancelling: the worker ends the job within seconds"
        return move(session, job_id, State.CANCELLING, message)
    raise Conflict(f"The job has already {state}.", "fine_tuning_job_id", "job_already_ended")


def resume(session: Session, tenant_id: str, job_id: str) -> FineTuningJob:
    """Send a paused job back to the queue; raise Conflict for any other."""
    job = find(session, tenant_id, job_id, lock=True)
    if job.state != State.PAUSED:
        raise Conflict(
            f"Only a paused job can be resumed; this one is {job.public_status}.",
            "fine_tuning_job_id",
            "job_not_paused",
        )
    return move(
        session,
        job_id,
        State.QUEUED,
        "The job goes on",
        sources=frozenset({State.PAUSED}),
        error=null(),
        not_before=None,
        crashes=0,
        fruitless_attempts=0,
    )


def model_names(session: Session, tenant_id: str, jobs: Iterable[FineTuningJob]) -> dict[str, str]:
    """Return the public names of the models that came of these jobs, by job id."""
    ids = [job.id for job in jobs]
    query = owned_by(tenant_id, Adapter).where(Adapter.job_id.in_(ids), Adapter.kind == "final")
    return {str(adapter.job_id): adapter.model for adapter in session.scalars(query)}


def events(
    session: Session, tenant_id: str, job_id: str, after: str | None, limit: int
) -> tuple[Sequence[JobEvent], bool]:
    """Return a page of a job's events, newest first, and whether there are more."""
    find(session, tenant_id, job_id)
    query = owned_by(tenant_id, JobEvent).where(JobEvent.job_id == job_id)
    beyond = _event_position(session, tenant_id, after) if after else None
    return page(session, query, JobEvent.seq, after=beyond, limit=limit)


def checkpoints(
    session: Session, tenant_id: str, job_id: str, after: str | None, limit: int
) -> tuple[Sequence[Adapter], bool]:
    """Return a page of a job's callable checkpoints, newest first, and whether there are more."""
    find(session, tenant_id, job_id)
    query = callable_adapters(tenant_id).where(
        Adapter.job_id == job_id, Adapter.kind == "checkpoint"
    )
    beyond = checkpoint_step(after, job_id) if after is not None else None
    return page(session, query, Adapter.step, after=beyond, limit=limit)


def _event_position(session: Session, tenant_id: str, event_id: str) -> int:
    """Return an event's place in the feed; raise NotFound."""
    event = session.scalar(owned_by(tenant_id, JobEvent).where(JobEvent.id == event_id))
    if event is None:
        raise NotFound(f"No such event: {event_id}", "after")
    return event.seq


def check_supported(asked: JobIn) -> None:
    """Raise InvalidRequest for what is OpenAI's and not here."""
    if asked.method is not None and asked.method.type != "supervised":
        raise InvalidRequest(
            "Only the method 'supervised' is supported so far.", "method.type", "unsupported"
        )
    for name in ("dpo", "reinforcement"):
        if asked.method is not None and getattr(asked.method, name) is not None:
            raise InvalidRequest(
                f"Only the method 'supervised' is supported so far, without '{name}' beside it.",
                f"method.{name}",
                "unsupported",
            )
    if asked.integrations:
        raise InvalidRequest("Integrations are not supported.", "integrations", "unsupported")


def numbers_for(asked: JobIn, rows: int, base: BaseModelEntry) -> Hyperparameters:
    """Return what a job would train with on a file of so many rows."""
    numbers = resolve(asked.requested(), max(1, round(rows * asked.x_training_share)), base)
    rank = _rank(asked.x_lora, base) if asked.x_lora else numbers.rank
    # alpha over rank is the strength of the adapter; it stays what the catalog says.
    alpha = max(1, round(numbers.alpha * rank / numbers.rank))
    compared = asked.x_compare
    held_out = compared.questions if compared and compared.held_out_file is None else 0
    return numbers.model_copy(
        update={
            "rank": rank,
            "alpha": alpha,
            "held_out": held_out,
            "training_share": asked.x_training_share,
            "forgetting_budget": asked.x_forgetting_budget,
        }
    )


def _rank(lora: Lora, base: BaseModelEntry) -> int:
    """Return the rank asked for; raise InvalidRequest for one outside the profile."""
    profile = base.profile
    if lora.rank is not None and lora.rank > profile.max_rank:
        raise InvalidRequest(
            f"Outside the profile: {base.name} trains "
            f"layers {profile.first_trained_layer} to {profile.last_trained_layer}, "
            f"modules {', '.join(profile.modules)}, rank at most {profile.max_rank}.",
            "x_lora.rank",
        )
    return lora.rank or base.defaults.rank


def _start(session: Session, job: FineTuningJob) -> None:
    """Write the first events; the scheduler has the files checked, in a process of their own."""
    record(session, job, f"Created fine-tuning job: {job.id}", state=State.VALIDATING)
    files = f"training file: {job.training_file_id}"
    if job.validation_file_id:
        files += f" and validation file: {job.validation_file_id}"
    record(session, job, f"Validating {files}")
