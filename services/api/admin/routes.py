"""Tenants and keys, for the administrator's key only (the front door sees to that).

POST|GET /admin/tenants · POST|GET /admin/tenants/{tenant_id}/keys
GET|PUT /admin/tenants/{tenant_id}/limits
DELETE /admin/keys/{key_id}. A key's secret is shown in the answer that makes it, and never again.
"""

import logging
from typing import Annotated

from fastapi import APIRouter

from services.api.admin import service
from services.api.admin.schemas import KeyOut, NewKeyOut, NewTenantOut, TenantIn, TenantOut
from services.api.contract import errors
from services.api.deps import PartsDep, SystemSessionDep
from services.api.json_body import ApiRoute
from services.api.pagination import Cursor, Limit, Listing, id_of
from shared.errors import Conflict, NotFound, UnsupportedMediaType
from shared.tenants.limits import Limits, OwnLimits

log = logging.getLogger(__name__)
router = APIRouter(prefix="/admin", tags=["administration"], route_class=ApiRoute)


@router.post("/tenants", status_code=201, responses=errors(Conflict, UnsupportedMediaType))
def create_tenant(body: TenantIn, session: SystemSessionDep) -> NewTenantOut:
    """Create a tenant and its first key."""
    tenant = service.create_tenant(session, body.name)
    key, secret = service.create_key(session, tenant)
    _log("tenant created", tenant.id, key.id)
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
    tenant_id: str, body: OwnLimits, parts: PartsDep, session: SystemSessionDep
) -> Limits:
    """Replace a tenant's own limits; those left out are the deployment's. Holds within seconds."""
    tenant = service.find_tenant(session, tenant_id)
    tenant.limits = body.model_dump(exclude_none=True)
    return parts.settings.limits_of(tenant.limits)


@router.post("/tenants/{tenant_id}/keys", status_code=201, responses=errors(NotFound))
def create_key(tenant_id: str, session: SystemSessionDep) -> NewKeyOut:
    """Create a further key for a tenant."""
    tenant = service.find_tenant(session, tenant_id)
    key, secret = service.create_key(session, tenant)
    _log("key created", tenant.id, key.id)
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
def revoke_key(key_id: str, session: SystemSessionDep) -> KeyOut:
    """Revoke a tenant's key; it stops working within seconds."""
    key = service.revoke_key(session, key_id)
    _log("key revoked", key.tenant_id, key.id)
    return KeyOut.of(key)


def _log(what: str, tenant_id: str | None, key_id: str) -> None:
    log.info(what, extra={"data": {"tenant_id": tenant_id, "key_id": key_id}})
