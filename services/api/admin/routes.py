"""Tenants and keys, for the administrator's key only (the front door sees to that).

POST|GET /admin/tenants · POST|GET /admin/tenants/{tenant_id}/keys
GET|PUT|PATCH /admin/tenants/{tenant_id}/limits
DELETE /admin/keys/{key_id}. A key's secret is shown in the answer that makes it, and never again.
"""

from typing import Annotated

from fastapi import APIRouter
from sqlalchemy.orm import Session

from services.api.admin import service
from services.api.admin.action_log import AdminKeyDep, log_action
from services.api.admin.jobs.routes import router as job_routes
from services.api.admin.schemas import KeyOut, NewKeyOut, NewTenantOut, TenantIn, TenantOut
from services.api.contract import errors
from services.api.deps import PartsDep, SystemSessionDep
from services.api.json_body import ApiRoute
from services.api.pagination import Cursor, Limit, Listing, id_of
from shared.errors import Conflict, NotFound, UnsupportedMediaType
from shared.telemetry import log_event
from shared.tenants.limits import Limits, OwnLimits

router = APIRouter(prefix="/admin", tags=["administration"], route_class=ApiRoute)
router.include_router(job_routes)


@router.post("/tenants", status_code=201, responses=errors(Conflict, UnsupportedMediaType))
def create_tenant(
    body: TenantIn, admin_key: AdminKeyDep, session: SystemSessionDep
) -> NewTenantOut:
    """Create a tenant and its first key."""
    tenant = service.create_tenant(session, body.name)
    key, secret = service.create_key(session, tenant)
    data = {"tenant_id": tenant.id, "key_id": key.id, "admin_key_id": admin_key}
    log_action(session, "tenant created", log_event("admin_tenant_created", **data))
    shown = TenantOut.of(tenant).model_dump()
    return NewTenantOut(**shown, api_key=secret, api_key_id=key.id)


@router.get("/tenants")
def list_tenants(
    session: SystemSessionDep,
    after: Annotated[Cursor, id_of("org-")] = None,
    limit: Limit = 100,
) -> Listing[TenantOut]:
    """List the tenants, newest first."""
    rows, has_more = service.tenants(session, after, limit)
    return Listing(data=[TenantOut.of(row) for row in rows], has_more=has_more)


@router.get("/tenants/{tenant_id}/limits", responses=errors(NotFound))
def show_limits(tenant_id: str, parts: PartsDep, session: SystemSessionDep) -> Limits:
    """Show what a tenant may use: its own limits over the deployment's."""
    return parts.settings.limits_of(service.find_tenant(session, tenant_id).limits)


@router.put("/tenants/{tenant_id}/limits", responses=errors(NotFound, UnsupportedMediaType))
def set_limits(
    *,
    tenant_id: str,
    body: OwnLimits,
    admin_key: AdminKeyDep,
    parts: PartsDep,
    session: SystemSessionDep,
) -> Limits:
    """Replace a tenant's own limits; those left out are the deployment's. Holds within seconds."""
    own = service.set_limits(session, tenant_id, body)
    _log_limits(session, tenant_id, own, admin_key)
    return parts.settings.limits_of(own)


@router.patch("/tenants/{tenant_id}/limits", responses=errors(NotFound, UnsupportedMediaType))
def change_limits(
    *,
    tenant_id: str,
    body: OwnLimits,
    admin_key: AdminKeyDep,
    parts: PartsDep,
    session: SystemSessionDep,
) -> Limits:
    """Change the limits that are named; null makes one the deployment's. Holds within seconds."""
    own = service.change_limits(session, tenant_id, body)
    _log_limits(session, tenant_id, own, admin_key)
    return parts.settings.limits_of(own)


@router.post("/tenants/{tenant_id}/keys", status_code=201, responses=errors(NotFound))
def create_key(tenant_id: str, admin_key: AdminKeyDep, session: SystemSessionDep) -> NewKeyOut:
    """Create a further key for a tenant."""
    tenant = service.find_tenant(session, tenant_id)
    key, secret = service.create_key(session, tenant)
    data = {"tenant_id": tenant.id, "key_id": key.id, "admin_key_id": admin_key}
    log_action(session, "key created", log_event("admin_key_created", **data))
    return NewKeyOut.of_new(key, secret)


@router.get("/tenants/{tenant_id}/keys", responses=errors(NotFound))
def list_keys(
    tenant_id: str,
    session: SystemSessionDep,
    after: Annotated[Cursor, id_of("key_")] = None,
    limit: Limit = 100,
) -> Listing[KeyOut]:
    """List a tenant's keys, newest first, without their secrets."""
    rows, has_more = service.keys(session, tenant_id, after, limit)
    return Listing(data=[KeyOut.of(row) for row in rows], has_more=has_more)


@router.delete("/keys/{key_id}", responses=errors(NotFound))
def revoke_key(key_id: str, admin_key: AdminKeyDep, session: SystemSessionDep) -> KeyOut:
    """Revoke a tenant's key; it stops working within seconds."""
    key = service.revoke_key(session, key_id)
    data = {"tenant_id": key.tenant_id, "key_id": key.id, "admin_key_id": admin_key}
    log_action(session, "key revoked", log_event("admin_key_revoked", **data))
    return KeyOut.of(key)


def _log_limits(session: Session, tenant_id: str, own: dict[str, int], admin_key: str) -> None:
    data = {"tenant_id": tenant_id, "own_limits": own, "admin_key_id": admin_key}
    log_action(session, "limits changed", log_event("admin_limits_changed", **data))
