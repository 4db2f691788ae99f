"""Files: upload, list, retrieve, content, delete."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse

from services.api.completions.connection import while_connected
from services.api.deps import LimitsDep, PartsDep, SessionDep, TenantDep
from services.api.files import service
from services.api.files.room import check_room
from services.api.files.schemas import FileDeleted, FileOut
from services.api.files.upload import received
from services.api.json_body import ApiRoute
from services.api.pagination import Cursor, EndedListing, Order, id_of, page
from shared.files.models import StoredFile

router = APIRouter(prefix="/files", route_class=ApiRoute)


@router.post("")
async def upload_file(
    request: Request, parts: PartsDep, tenant_id: TenantDep, limits: LimitsDep
) -> FileOut:
    """Receive a file; a training file with a bad line is refused, naming the line."""
    await to_thread.run_sync(check_room, parts, tenant_id, limits.stored_bytes, _announced(request))
    async with received(request, parts.store, parts.settings) as upload:
        report = await while_connected(
            request, lambda: service.check(parts.file_checks, tenant_id, upload)
        )
        file = await to_thread.run_sync(
            service.keep, parts.tenant_engine, parts.store, tenant_id, upload, report
        )
    return FileOut.of(file)


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


@router.get("")
def list_files(
    *,
    tenant_id: TenantDep,
    session: SessionDep,
    purpose: Annotated[str | None, Query(max_length=32)] = None,
    after: Annotated[Cursor, id_of("file-")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
) -> EndedListing[FileOut]:
    """List the tenant's files."""
    query = service.visible(tenant_id)
    if purpose is not None:
        query = query.where(StoredFile.purpose == purpose)
    rows, has_more = page(session, query, StoredFile.id, after=after, limit=limit, order=order)
    data = [FileOut.of(row) for row in rows]
    return EndedListing(
        data=data,
        has_more=has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.get("/{file_id}")
def retrieve_file(file_id: str, tenant_id: TenantDep, session: SessionDep) -> FileOut:
    """Show one file."""
    return FileOut.of(service.find(session, tenant_id, file_id))


@router.get("/{file_id}/content", response_class=FileResponse)
def file_content(
    file_id: str, parts: PartsDep, tenant_id: TenantDep, session: SessionDep
) -> FileResponse:
    """Send the bytes as they were uploaded."""
    file = service.find(session, tenant_id, file_id)
    return FileResponse(
        service.raw_path(parts.store, file),
        media_type="application/octet-stream",
        filename=file.filename,
    )


@router.delete("/{file_id}")
def delete_file(file_id: str, tenant_id: TenantDep, session: SessionDep) -> FileDeleted:
    """Delete one file, unless a live job uses it."""
    service.delete(session, tenant_id, file_id)
    return FileDeleted(id=file_id)
