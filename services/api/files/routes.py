"""Files: upload, list, retrieve, content, delete."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request

from services.api.completions.connection import while_connected
from services.api.contract import binary, errors
from services.api.deps import LimitsDep, PartsDep, SessionDep, TenantDep
from services.api.files import service
from services.api.files.content import Content, RangeNotSatisfiable
from services.api.files.room import check_room
from services.api.files.schemas import UPLOAD, FileDeleted, FileOut, RowOut
from services.api.files.upload import received
from services.api.json_body import ApiRoute
from services.api.pagination import Cursor, EndedListing, Listing, Order, id_of
from shared.errors import Conflict, InsufficientStorage, NotFound, RateLimited

router = APIRouter(prefix="/files", tags=["files"], route_class=ApiRoute)


@router.post("", responses=errors(RateLimited, InsufficientStorage), openapi_extra=UPLOAD)
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
    rows, has_more = service.files(session, tenant_id, purpose, after, limit=limit, order=order)
    data = [FileOut.of(row) for row in rows]
    return EndedListing(
        data=data,
        has_more=has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.get("/{file_id}", responses=errors(NotFound))
def retrieve_file(file_id: str, tenant_id: TenantDep, session: SessionDep) -> FileOut:
    """Show one file."""
    return FileOut.of(service.find(session, tenant_id, file_id))


@router.get(
    "/{file_id}/content",
    response_class=Content,
    responses={
        200: binary("application/octet-stream", "The whole file"),
        206: binary("application/octet-stream", "The part that `Range` asks for"),
        **errors(NotFound, RangeNotSatisfiable),
    },
)
def file_content(
    file_id: str, parts: PartsDep, tenant_id: TenantDep, session: SessionDep
) -> Content:
    """Send the bytes as they were uploaded."""
    file = service.find(session, tenant_id, file_id)
    return Content(
        service.raw_path(parts.store, file),
        media_type="application/octet-stream",
        filename=file.filename,
    )


@router.get("/{file_id}/rows", responses=errors(NotFound, Conflict))
def file_rows(
    file_id: str,
    parts: PartsDep,
    tenant_id: TenantDep,
    session: SessionDep,
    limit: Annotated[int, Query(ge=1, le=20)] = 5,
) -> Listing[RowOut]:
    """Show a training file's first rows as they were read: what the model would learn from."""
    file = service.find(session, tenant_id, file_id)
    rows, has_more = service.first_rows(parts.store, file, limit)
    return Listing(data=rows, has_more=has_more)


@router.delete("/{file_id}", responses=errors(NotFound, Conflict))
def delete_file(file_id: str, tenant_id: TenantDep, session: SessionDep) -> FileDeleted:
    """Delete one file, unless a live job uses it."""
    service.delete(session, tenant_id, file_id)
    return FileDeleted(id=file_id)
