"""Any tenant's fine-tuning jobs: look, cancel, resume.

GET /admin/jobs?tenant=…&state=… · GET /admin/jobs/{job_id}/events
POST /admin/jobs/{job_id}/cancel · POST /admin/jobs/{job_id}/resume
"""

from typing import Annotated

from fastapi import APIRouter, Query

from services.api.admin.action_log import AdminKeyDep, log_action
from services.api.admin.jobs import service
from services.api.admin.jobs.schemas import AdminJobOut
from services.api.contract import errors
from services.api.deps import PartsDep, SystemSessionDep
from services.api.jobs.schemas import EventOut
from services.api.json_body import ApiRoute
from services.api.pagination import Cursor, Limit, Listing, id_of
from shared.db import transaction
from shared.errors import Conflict, NotFound
from shared.jobs.state import State
from shared.telemetry import log_event

router = APIRouter(prefix="/jobs", route_class=ApiRoute)


@router.get("")
def admin_list_jobs(
    session: SystemSessionDep,
    tenant: Annotated[str | None, Query(max_length=48)] = None,
    state: Annotated[list[State], Query()] = [],  # noqa: B006  FastAPI copies it
    after: Annotated[Cursor, id_of("ftjob-")] = None,
    limit: Limit = 100,
) -> Listing[AdminJobOut]:
    """List jobs, newest first, perhaps only a tenant's, or those in certain states."""
    rows, has_more = service.jobs(session, tenant, state, after, limit)
    return Listing(data=[AdminJobOut.of(row) for row in rows], has_more=has_more)


@router.get("/{job_id}/events", responses=errors(NotFound))
def admin_list_events(
    job_id: str,
    session: SystemSessionDep,
    after: Annotated[Cursor, id_of("ftevent-")] = None,
    limit: Limit = 20,
) -> Listing[EventOut]:
    """List a job's events, newest first."""
    rows, has_more = service.events(session, job_id, after, limit)
    return Listing(data=[EventOut.of(row) for row in rows], has_more=has_more)


@router.post("/{job_id}/cancel", responses=errors(NotFound, Conflict))
def admin_cancel_job(job_id: str, admin_key: AdminKeyDep, session: SystemSessionDep) -> AdminJobOut:
    """Cancel a job."""
    job = service.cancel(session, job_id)
    data = {"tenant_id": job.tenant_id, "job_id": job.id, "admin_key_id": admin_key}
    log_action(session, "job cancelled", log_event("admin_job_cancelled", **data))
    return AdminJobOut.of(job)


@router.post("/{job_id}/resume", responses=errors(NotFound, Conflict))
def admin_resume_job(job_id: str, admin_key: AdminKeyDep, parts: PartsDep) -> AdminJobOut:
    """Let a paused job go on; one that is trained is published without training again."""
    with transaction(parts.system_engine) as session:
        job = service.resume(session, job_id)
        data = {"tenant_id": job.tenant_id, "job_id": job.id, "admin_key_id": admin_key}
        log_action(session, "job resumed", log_event("admin_job_resumed", **data))
        shown = AdminJobOut.of(job)
    parts.doorbell.ring()
    return shown
