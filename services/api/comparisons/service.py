"""Rules for comparisons: what may be compared, and how one is cancelled and deleted."""

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, null, select, update
from sqlalchemy.orm import Session

from services.api.comparisons.schemas import Asked, ComparisonIn
from services.api.files.service import file_of, fine_tuning_file
from services.api.jobs import service as jobs
from services.api.pagination import page
from services.api.repeats import Repeat, digest_of, find_earlier, refuse_a_long_queue
from shared.comparisons.models import (
    Comparison,
    ComparisonAnswer,
    ComparisonEvent,
    ComparisonQuestion,
)
from shared.comparisons.state import NOT_STARTED, SOURCES, TERMINAL, State
from shared.comparisons.transitions import move, record
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.evidence.arms import TUNED_ARMS, Arm
from shared.evidence.curve import curve_of, same_questions
from shared.evidence.report import CurvePoint, Report
from shared.ids import new_id
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State as JobState
from shared.jobs.transitions import record as record_of_job
from shared.tenants.models import owned_by


def create(
    session: Session,
    tenant_id: str,
    asked: ComparisonIn,
    base_model: str,
    repeat: Repeat,
    *,
    most_queued: int,
) -> Comparison:
    """Insert a comparison, or return the one that this request already made.

    One of a job that has not ended waits for it. Raises LimitReached when ``most_queued`` of the
    tenant's comparisons wait already.
    """
    digest = digest_of(asked)
    earlier = find_earlier(session, tenant_id, Comparison, digest, repeat)
    if earlier is not None:
        return earlier
    refuse_a_long_queue(session, tenant_id, Comparison, NOT_STARTED, most_queued)
    job = jobs.find(session, tenant_id, asked.job) if asked.job else None
    if job is None:
        training_file = _training_file(session, tenant_id, asked)
    else:
        _refuse_a_job_without_model(job)
        if asked.held_out_file is None and not job.hyperparameters.get("held_out"):
            raise InvalidRequest(
                "Name a held_out_file: the job has learnt all rows of its training file. "
                "One with `x_compare` sets some apart.",
                "held_out_file",
            )
        training_file = job.training_file_id
    return insert(
        session,
        tenant_id,
        asked,
        Comparison(
            base_model=base_model,
            job_id=job.id if job else None,
            training_file_id=training_file,
            user_metadata=null() if asked.metadata is None else asked.metadata,
            idempotency_key=repeat.key,
            request_sha256=digest,
            state=State.QUEUED if job is None or job.state == JobState.SUCCEEDED else State.WAITING,
        ),
    )


def insert_once(session: Session, asked: Asked, job: FineTuningJob) -> None:
    """Insert the comparison that a new job ends with; not again where the request is repeated."""
    if session.scalar(owned_by(job.tenant_id, Comparison).where(Comparison.job_id == job.id)):
        return
    row = Comparison(
        base_model=job.base_model,
        job_id=job.id,
        training_file_id=job.training_file_id,
        user_metadata=null(),
        state=State.WAITING,
    )
    comparison = insert(session, job.tenant_id, asked, row)
    record_of_job(
        session,
        job,
        f"Comparison {comparison.id} waits for the job",
        data={"comparison": comparison.id},
    )


def insert(session: Session, tenant_id: str, asked: Asked, row: Comparison) -> Comparison:
    """Fill in what was asked, and insert with the first event; raises InvalidRequest, NotFound."""
    if asked.held_out_file is not None:
        fine_tuning_file(session, tenant_id, asked.held_out_file, "held_out_file")
    for number, document in enumerate(asked.documents):
        file_of(session, tenant_id, document, f"documents[{number}]", "user_data")
    row.id = new_id("cmp-")
    row.tenant_id = tenant_id
    row.held_out_file_id = asked.held_out_file
    row.document_file_ids = asked.documents
    row.arms = [arm.value for arm in arms_of(asked, tuned=row.job_id is not None)]
    row.checker = asked.checker
    row.questions = asked.questions
    row.max_tokens = asked.max_tokens
    row.seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    row.retriever = asked.retriever
    session.add(row)
    session.flush()
    session.refresh(row)
    record(session, row, f"Created comparison: {row.id}", state=State(row.state))
    return row


def arms_of(asked: Asked, *, tuned: bool) -> list[Arm]:
    """Return the arms to ask; raise InvalidRequest for one that makes no sense."""
    if asked.arms is None:
        return [
            arm
            for arm in Arm
            if (tuned or arm not in TUNED_ARMS) and (asked.documents or arm != Arm.DOCUMENTS)
        ]
    chosen = set(asked.arms)
    if chosen & TUNED_ARMS and not tuned:
        raise InvalidRequest("The tuned arms need a job, whose model they ask.", "arms")
    if Arm.DOCUMENTS in chosen and not asked.documents:
        raise InvalidRequest("The arm 'documents' needs documents.", "arms")
    if chosen <= TUNED_ARMS:
        raise InvalidRequest("At least one arm must be untuned, to compare with.", "arms")
    return [arm for arm in Arm if arm in chosen]


def comparisons(
    session: Session, tenant_id: str, after: str | None, limit: int
) -> tuple[Sequence[Comparison], bool]:
    """Return a page of the tenant's comparisons, newest first, and whether there are more."""
    query = owned_by(tenant_id, Comparison).where(Comparison.deleted_at.is_(None))
    return page(session, query, Comparison.id, after=after, limit=limit)


def find(session: Session, tenant_id: str, comparison_id: str, *, lock: bool = False) -> Comparison:
    """Return one comparison; raise NotFound."""
    query = owned_by(tenant_id, Comparison).where(
        Comparison.id == comparison_id, Comparison.deleted_at.is_(None)
    )
    comparison = session.scalar(query.with_for_update() if lock else query)
    if comparison is None:
        raise NotFound(f"No such comparison: {comparison_id}", "comparison_id")
    return comparison


def report(session: Session, tenant_id: str, comparison_id: str) -> Report:
    """Return a comparison's report; raise NotFound, and Conflict while there is none."""
    comparison = find(session, tenant_id, comparison_id)
    if comparison.report is None:
        raise Conflict(
            f"There is a report when the comparison has succeeded; it is {comparison.state}.",
            "comparison_id",
            "comparison_not_finished",
        )
    found = Report.model_validate(comparison.report)
    jobs_own = owned_by(tenant_id, FineTuningJob).where(FineTuningJob.id == comparison.job_id)
    job = session.scalar(jobs_own)
    if job is None:
        return found
    return found.model_copy(update={"learning_curve": _learning_curve(session, found, job)})


def _learning_curve(session: Session, report: Report, job: FineTuningJob) -> tuple[CurvePoint, ...]:
    """Join what the same questions say of jobs that differ in the share of the rows they learnt."""
    others = (
        select(Comparison.report, FineTuningJob.hyperparameters)
        .join(FineTuningJob, FineTuningJob.id == Comparison.job_id)
        .where(
            Comparison.tenant_id == job.tenant_id,
            Comparison.deleted_at.is_(None),
            Comparison.state == State.SUCCEEDED,
            FineTuningJob.training_file_id == job.training_file_id,
            FineTuningJob.base_model == job.base_model,
            FineTuningJob.seed == job.seed,
        )
        .order_by(Comparison.id)
    )
    of_share = {}
    for theirs, numbers in session.execute(others):
        other = Report.model_validate(theirs)
        if same_questions(other, report) and _alike(numbers, job.hyperparameters):
            of_share[numbers.get("training_share", 1.0)] = other
    of_share[job.hyperparameters.get("training_share", 1.0)] = report
    return curve_of(of_share)


OF_SHARE = frozenset({"training_share", "n_epochs", "early_stopping_patience"})
"""What may differ along a learning curve: fewer rows are gone through more often."""


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in {*one, *other} - OF_SHARE)


def rows(
    session: Session, tenant_id: str, comparison_id: str, after: int | None, limit: int
) -> tuple[list[tuple[ComparisonQuestion, list[ComparisonAnswer]]], bool]:
    """Return a page of the questions with their answers, by line, and whether there are more."""
    find(session, tenant_id, comparison_id)
    query = owned_by(tenant_id, ComparisonQuestion).where(
        ComparisonQuestion.comparison_id == comparison_id
    )
    questions, more = page(
        session, query, ComparisonQuestion.line, after=after, limit=limit, order="asc"
    )
    answers: dict[int, list[ComparisonAnswer]] = defaultdict(list)
    for answer in session.scalars(
        owned_by(tenant_id, ComparisonAnswer)
        .where(
            ComparisonAnswer.comparison_id == comparison_id,
            ComparisonAnswer.line.in_([question.line for question in questions]),
        )
        .order_by(ComparisonAnswer.arm)
    ):
        answers[answer.line].append(answer)
    return [(question, answers[question.line]) for question in questions], more


def events(
    session: Session, tenant_id: str, comparison_id: str, after: str | None, limit: int
) -> tuple[Sequence[ComparisonEvent], bool]:
    """Return a page of a comparison's events, newest first, and whether there are more."""
    find(session, tenant_id, comparison_id)
    query = owned_by(tenant_id, ComparisonEvent).where(
        ComparisonEvent.comparison_id == comparison_id
    )
    beyond = None
    if after is not None:
        beyond = session.scalar(
            select(ComparisonEvent.seq).where(
                ComparisonEvent.id == after, ComparisonEvent.tenant_id == tenant_id
            )
        )
        if beyond is None:
            raise NotFound(f"No such event: {after}", "after")
    return page(session, query, ComparisonEvent.seq, after=beyond, limit=limit)


def cancel(session: Session, tenant_id: str, comparison_id: str) -> Comparison:
    """End a waiting comparison now; ask the comparer to end a running one.

    Asking again while it is being ended changes nothing; raises Conflict for an ended one.
    """
    comparison = find(session, tenant_id, comparison_id, lock=True)
    state = State(comparison.state)
    if state == State.CANCELLING:
        return comparison
    if state in NOT_STARTED:
        return move(session, comparison_id, State.CANCELLED, "The comparison has been cancelled")
    if state in SOURCES[State.CANCELLING]:
        message = "Cancelling: the comparison ends within seconds"
        return move(session, comparison_id, State.CANCELLING, message)
    raise Conflict(
        f"The comparison has already {state}.", "comparison_id", "comparison_already_ended"
    )


def delete(session: Session, tenant_id: str, comparison_id: str) -> None:
    """Delete an ended comparison with its questions, answers, events and report.

    Raises NotFound, and Conflict for one that has not ended.
    """
    comparison = find(session, tenant_id, comparison_id, lock=True)
    if comparison.state not in TERMINAL:
        raise Conflict(
            "The comparison has not ended; cancel it first.", "comparison_id", "comparison_in_use"
        )
    for table in (ComparisonAnswer, ComparisonQuestion, ComparisonEvent):
        session.execute(
            delete_rows(table).where(
                table.tenant_id == tenant_id, table.comparison_id == comparison_id
            )
        )
    session.execute(
        update(Comparison)
        .where(Comparison.id == comparison_id, Comparison.tenant_id == tenant_id)
        .values(
            deleted_at=func.clock_timestamp(),
            report=null(),
            user_metadata=null(),
            # A request repeated after this makes a new one, not one that is gone.
            idempotency_key=null(),
            request_sha256=null(),
        )
    )


def _training_file(session: Session, tenant_id: str, asked: ComparisonIn) -> str:
    if asked.training_file is None:
        raise InvalidRequest("Name a training_file, or a job.", "training_file")
    fine_tuning_file(session, tenant_id, asked.training_file, "training_file")
    return asked.training_file


def _refuse_a_job_without_model(job: FineTuningJob) -> None:
    if job.state in {JobState.FAILED, JobState.CANCELLED}:
        raise InvalidRequest(f"The job has {job.state}: it has no model to ask.", "job")
