"""Any tenant's jobs, with the system role; the rules are those of the tenant's own routes."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.api.jobs import service
from services.api.pagination import page
from shared.errors import NotFound
from shared.jobs.models import FineTuningJob, JobEvent
from shared.jobs.state import State
from shared.jobs.transitions import record

BY_ORDER = "The administrator of this installation has ordered it"


def jobs(
    session: Session,
    tenant_id: str | None,
    states: Sequence[State],
    after: str | None,
    limit: int,
) -> tuple[Sequence[FineTuningJob], bool]:
    """Return a page of all jobs, newest first, and whether there are more.

    ``tenant_id`` and ``states``, where given, narrow it.
    """
    query = select(FineTuningJob)
    if tenant_id is not None:
        query = query.where(FineTuningJob.tenant_id == tenant_id)
    if states:
        query = query.where(FineTuningJob.state.in_(states))
    return page(session, query, FineTuningJob.id, after=after, limit=limit)


def events(
    session: Session, job_id: str, after: str | None, limit: int
) -> tuple[Sequence[JobEvent], bool]:
    """Return a page of a job's events, newest first, and whether there are more."""
    return service.events(session, _owner(session, job_id), job_id, after, limit)


def cancel(session: Session, job_id: str) -> FineTuningJob:
    """Cancel a job as its owner could; its feed says who did."""
    job = service.cancel(session, _owner(session, job_id), job_id)
    record(session, job, BY_ORDER)
    return job


def resume(session: Session, job_id: str) -> FineTuningJob:
    """Let a paused job go on as its owner could; its feed says who did."""
    job = service.resume(session, _owner(session, job_id), job_id)
    record(session, job, BY_ORDER)
    return job


def _owner(session: Session, job_id: str) -> str:
    """Return the tenant of a job; raise NotFound."""
    # Its id alone: a row that was loaded here would be read no more when it is locked.
    tenant_id = session.scalar(select(FineTuningJob.tenant_id).where(FineTuningJob.id == job_id))
    if tenant_id is None:
        raise NotFound(f"Could not find fine tune: {job_id}", "fine_tuning_job_id")
    return tenant_id
