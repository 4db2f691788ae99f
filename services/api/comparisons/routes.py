"""Comparisons: create, list, retrieve, report, rows, events, cancel, delete."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from sqlalchemy.orm import Session

from services.api.comparisons import service
from services.api.comparisons.schemas import (
    ComparisonDeleted,
    ComparisonEventOut,
    ComparisonIn,
    ComparisonOut,
    Language,
    RowOut,
)
from services.api.contract import binary, errors
from services.api.deps import LimitsDep, Parts, PartsDep, SessionDep, TenantDep
from services.api.jobs import service as jobs
from services.api.json_body import ApiRoute
from services.api.models.service import base_not_served, find_base
from services.api.pagination import Cursor, Limit, Listing, id_of
from services.api.repeats import Repeat
from shared.db import tenant_transaction
from shared.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    RateLimited,
    UnsupportedMediaType,
)
from shared.evidence.report import Report
from shared.task_queue import COMPARE

router = APIRouter(prefix="/comparisons", tags=["comparisons"], route_class=ApiRoute)


@router.post("", responses=errors(NotFound, Conflict, UnsupportedMediaType, RateLimited))
def create_comparison(
    *,
    body: ComparisonIn,
    parts: PartsDep,
    tenant_id: TenantDep,
    limits: LimitsDep,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    x_stainless_retry_count: Annotated[int, Header()] = 0,
) -> ComparisonOut:
    """Compare fine-tuning with few-shot and retrieval on held-out rows."""
    window = parts.settings.retry_window_seconds
    repeat = Repeat(idempotency_key, x_stainless_retry_count > 0, window)
    with tenant_transaction(parts.tenant_engine, tenant_id) as session:
        base = _base(session, tenant_id, body, parts)
        row = service.create(session, tenant_id, body, base, repeat, most_queued=limits.queued_jobs)
        shown = ComparisonOut.of(row)
    # Rung after the commit: whoever hears it must find the row.
    parts.doorbell.ring(COMPARE)
    return shown


@router.get("")
def list_comparisons(
    tenant_id: TenantDep,
    session: SessionDep,
    after: Annotated[Cursor, id_of("cmp-")] = None,
    limit: Limit = 20,
) -> Listing[ComparisonOut]:
    """List the tenant's comparisons, newest first."""
    rows, has_more = service.comparisons(session, tenant_id, after, limit)
    return Listing(data=[ComparisonOut.of(row) for row in rows], has_more=has_more)


@router.get("/{comparison_id}", responses=errors(NotFound))
def retrieve_comparison(
    comparison_id: str, tenant_id: TenantDep, session: SessionDep
) -> ComparisonOut:
    """Show one comparison."""
    return ComparisonOut.of(service.find(session, tenant_id, comparison_id))


@router.get(
    "/{comparison_id}/report",
    response_model=Report,
    responses={
        **errors(NotFound, Conflict),
        200: binary("text/html", "The report; a page, where one is asked for."),
    },
)
def retrieve_report(
    comparison_id: str,
    tenant_id: TenantDep,
    session: SessionDep,
    form: Annotated[Literal["json", "html"], Query(alias="format")] = "json",
    language: Language = "en",
) -> Report | Response:
    """Show the report of a finished comparison, as data or as one page that needs no network."""
    found = service.report(session, tenant_id, comparison_id)
    if form == "json":
        return found
    from shared.evidence.page import html  # noqa: PLC0415  the template engine is slow to load

    return Response(html(found, language), media_type="text/html; charset=utf-8")


@router.get("/{comparison_id}/rows", responses=errors(NotFound))
def list_rows(
    comparison_id: str,
    tenant_id: TenantDep,
    session: SessionDep,
    after: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    limit: Limit = 20,
) -> Listing[RowOut]:
    """List the questions with every arm's answer, by line; ``after`` is a line."""
    rows, has_more = service.rows(session, tenant_id, comparison_id, after, limit)
    return Listing(data=[RowOut.of(*row) for row in rows], has_more=has_more)


@router.get("/{comparison_id}/events", responses=errors(NotFound))
def list_comparison_events(
    comparison_id: str,
    tenant_id: TenantDep,
    session: SessionDep,
    after: Annotated[Cursor, id_of("cmpevent-")] = None,
    limit: Limit = 20,
) -> Listing[ComparisonEventOut]:
    """List a comparison's events, newest first."""
    rows, has_more = service.events(session, tenant_id, comparison_id, after, limit)
    return Listing(data=[ComparisonEventOut.of(row) for row in rows], has_more=has_more)


@router.post("/{comparison_id}/cancel", responses=errors(NotFound, Conflict))
def cancel_comparison(
    comparison_id: str, tenant_id: TenantDep, session: SessionDep
) -> ComparisonOut:
    """Cancel a comparison; the answers so far are kept."""
    return ComparisonOut.of(service.cancel(session, tenant_id, comparison_id))


@router.delete("/{comparison_id}", responses=errors(NotFound, Conflict))
def delete_comparison(
    comparison_id: str, tenant_id: TenantDep, session: SessionDep
) -> ComparisonDeleted:
    """Delete an ended comparison with all its answers."""
    service.delete(session, tenant_id, comparison_id)
    return ComparisonDeleted(id=comparison_id)


def _base(session: Session, tenant_id: str, body: ComparisonIn, parts: Parts) -> str:
    """Return the base model to ask: the job's, or the one that is named."""
    if body.job is not None and body.training_file is not None:
        raise InvalidRequest("Name a training_file or a job, not both.", "training_file")
    name = body.model
    if body.job is not None:
        of_job = jobs.find(session, tenant_id, body.job).base_model
        if name not in {None, of_job}:
            raise InvalidRequest(f"The job's base model is {of_job}.", "model")
        name = of_job
    if name is None:
        raise InvalidRequest("Name the base model.", "model")
    base = find_base(parts, name)
    if base is None:
        raise base_not_served(parts, name)
    return base.name
