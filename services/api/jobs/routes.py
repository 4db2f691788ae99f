"""Fine-tuning jobs: create, list, retrieve, cancel, resume, events, checkpoints."""

from collections.abc import Sequence
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from services.api.comparisons import service as comparisons
from services.api.contract import binary, errors
from services.api.deps import LimitsDep, Parts, PartsDep, SessionDep, TenantDep
from services.api.jobs import service
from services.api.jobs.estimate import EstimateOut, estimate
from services.api.jobs.schemas import CheckpointOut, EventOut, ExamplesOut, JobIn, JobOut
from services.api.json_body import ApiRoute
from services.api.models.service import base_not_served, find_base
from services.api.pagination import Cursor, EndedListing, Limit, Listing, id_of
from services.api.repeats import Repeat
from shared.clock import now
from shared.db import tenant_transaction, transaction
from shared.errors import Conflict, NotFound, RateLimited, UnsupportedMediaType
from shared.jobs.models import FineTuningJob

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"], route_class=ApiRoute)

METADATA_FILTER = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "style": "deepObject",
            "explode": True,
            "description": "Only jobs with these pairs; `metadata=null`: only those without any.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}
"""For the document: FastAPI knows no parameters with names of the caller's."""


@router.post("", responses=errors(NotFound, Conflict, UnsupportedMediaType, RateLimited))
def create_job(
    *,
    body: JobIn,
    parts: PartsDep,
    tenant_id: TenantDep,
    limits: LimitsDep,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    x_stainless_retry_count: Annotated[int, Header()] = 0,
) -> JobOut:
    """Create a fine-tuning job; the scheduler validates its files and queues it."""
    base = find_base(parts, body.model)
    if base is None:
        raise base_not_served(parts, body.model)
    window = parts.settings.retry_window_seconds
    repeat = Repeat(idempotency_key, x_stainless_retry_count > 0, window)
    with tenant_transaction(parts.tenant_engine, tenant_id) as session:
        job = service.create(session, tenant_id, body, base, repeat, most_queued=limits.queued_jobs)
        if body.x_compare:
            comparisons.insert_once(session, body.x_compare, job)
        shown = _shown(parts, session, tenant_id, [job])[0]
    # Rung after the commit: a worker that hears it must find the row.
    parts.doorbell.ring()
    parts.metrics.jobs.inc()
    return shown


@router.get("", openapi_extra=METADATA_FILTER)
def list_jobs(
    *,
    request: Request,
    parts: PartsDep,
    tenant_id: TenantDep,
    session: SessionDep,
    after: Annotated[Cursor, id_of("ftjob-")] = None,
    limit: Limit = 20,
) -> Listing[JobOut]:
    """List the tenant's jobs, newest first, perhaps only those with certain metadata."""
    rows, has_more = service.jobs(session, tenant_id, _metadata(request), after, limit)
    return Listing(data=_shown(parts, session, tenant_id, rows), has_more=has_more)


@router.post("/estimate", responses=errors(NotFound, Conflict, UnsupportedMediaType))
def estimate_job(
    body: JobIn, parts: PartsDep, tenant_id: TenantDep, session: SessionDep
) -> EstimateOut:
    """Say what a job would be and how long it would take, and create nothing."""
    base = find_base(parts, body.model)
    if base is None:
        raise base_not_served(parts, body.model)
    with transaction(parts.system_engine) as system:
        return estimate(session, system, tenant_id, body, base)


@router.get("/{job_id}", responses=errors(NotFound))
def retrieve_job(job_id: str, parts: PartsDep, tenant_id: TenantDep, session: SessionDep) -> JobOut:
    """Show one job."""
    return _shown(parts, session, tenant_id, [service.find(session, tenant_id, job_id)])[0]


@router.post("/{job_id}/cancel", responses=errors(NotFound, Conflict))
def cancel_job(job_id: str, parts: PartsDep, tenant_id: TenantDep, session: SessionDep) -> JobOut:
    """Cancel a job."""
    return _shown(parts, session, tenant_id, [service.cancel(session, tenant_id, job_id)])[0]


@router.post("/{job_id}/resume", responses=errors(NotFound, Conflict))
def resume_job(job_id: str, parts: PartsDep, tenant_id: TenantDep) -> JobOut:
    """Let a paused job go on; one that is trained is published without training again."""
    with tenant_transaction(parts.tenant_engine, tenant_id) as session:
        shown = _shown(parts, session, tenant_id, [service.resume(session, tenant_id, job_id)])[0]
    parts.doorbell.ring()
    return shown


@router.get("/{job_id}/events", responses=errors(NotFound))
def list_events(
    job_id: str,
    tenant_id: TenantDep,
    session: SessionDep,
    after: Annotated[Cursor, id_of("ftevent-")] = None,
    limit: Limit = 20,
) -> Listing[EventOut]:
    """List a job's events, newest first."""
    rows, has_more = service.events(session, tenant_id, job_id, after, limit)
    return Listing(data=[EventOut.of(row) for row in rows], has_more=has_more)


@router.get("/{job_id}/checkpoints", responses=errors(NotFound))
def list_checkpoints(
    job_id: str,
    tenant_id: TenantDep,
    session: SessionDep,
    after: Cursor = None,
    limit: Limit = 10,
) -> EndedListing[CheckpointOut]:
    """List a job's callable checkpoints, newest first."""
    rows, has_more = service.checkpoints(session, tenant_id, job_id, after, limit)
    data = [CheckpointOut.of(row, job_id) for row in rows]
    ends = {"first_id": data[0].id, "last_id": data[-1].id} if data else {}
    return EndedListing(data=data, has_more=has_more, **ends)


@router.get("/{job_id}/examples", responses=errors(NotFound))
def show_examples(job_id: str, tenant_id: TenantDep, session: SessionDep) -> ExamplesOut:
    """Show what the model saw first, and what it answers; empty where there is nothing yet."""
    job = service.find(session, tenant_id, job_id)
    return ExamplesOut.model_validate(job.examples or {})


@router.get(
    "/{job_id}/live",
    response_class=StreamingResponse,
    responses={
        200: binary("text/event-stream", "`job`, `event` and at last `end`, as they come"),
        **errors(NotFound, RateLimited),
    },
)
async def follow_job(
    job_id: str,
    parts: PartsDep,
    tenant_id: TenantDep,
    after: Annotated[Cursor, id_of("ftevent-")] = None,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> StreamingResponse:
    """Follow one job, as server-sent events, to its end."""
    parts.live.room(tenant_id)
    await to_thread.run_sync(_owned, parts, tenant_id, job_id)
    return StreamingResponse(
        parts.live.follow(tenant_id, job_id, last_event_id or after),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


def _owned(parts: Parts, tenant_id: str, job_id: str) -> None:
    with tenant_transaction(parts.tenant_engine, tenant_id) as session:
        service.find(session, tenant_id, job_id)


def _shown(
    parts: Parts, session: Session, tenant_id: str, jobs: Sequence[FineTuningJob]
) -> list[JobOut]:
    names, places = service.model_names(session, tenant_id, jobs), parts.places.of(jobs)
    return [JobOut.of(job, names.get(job.id), now(), places.get(job.id)) for job in jobs]


def _metadata(request: Request) -> dict[str, str] | None:
    """Return the ``metadata[key]=value`` parameters; None for ``metadata=null``."""
    if request.query_params.get("metadata") == "null":
        return None
    return {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
