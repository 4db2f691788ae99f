"""Rules for tenants and keys, with the system role."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.api.pagination import page
from shared.errors import Conflict, NotFound
from shared.ids import new_id
from shared.tenants.keys import key_row, new_secret
from shared.tenants.limits import OwnLimits
from shared.tenants.models import ApiKey, Tenant


def create_tenant(session: Session, name: str) -> Tenant:
    """Add a tenant; raise Conflict when the name is taken."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext("tailor.tenant_name"))))
    if session.scalar(select(Tenant).where(Tenant.name == name)) is not None:
        raise Conflict(f"There is already a tenant called '{name}'.", "name", "name_taken")
    tenant = Tenant(id=new_id("org-"), name=name)
    session.add(tenant)
    session.flush()
    return tenant


def find_tenant(session: Session, tenant_id: str, *, lock: bool = False) -> Tenant:
    """Return one tenant; raise NotFound."""
    tenant = session.get(Tenant, tenant_id, with_for_update=lock)
    if tenant is None:
        raise NotFound(f"No such tenant: {tenant_id}", "tenant_id")
    return tenant


def set_limits(session: Session, tenant_id: str, asked: OwnLimits) -> dict[str, int]:
    """Replace a tenant's own limits; return them."""
    tenant = find_tenant(session, tenant_id)
    tenant.limits = own = asked.model_dump(exclude_none=True)
    return own


def change_limits(session: Session, tenant_id: str, asked: OwnLimits) -> dict[str, int]:
    """Change those of a tenant's own limits that are named, null takes one away; return them."""
    # Locked, or of two changes at the same time one would be lost.
    tenant = find_tenant(session, tenant_id, lock=True)
    named = (tenant.limits or {}) | asked.model_dump(exclude_unset=True)
    tenant.limits = own = {name: limit for name, limit in named.items() if limit is not None}
    return own


def tenants(session: Session, after: str | None, limit: int) -> tuple[Sequence[Tenant], bool]:
    """Return a page of the tenants, newest first, and whether there are more."""
    return page(session, select(Tenant), Tenant.id, after=after, limit=limit)


def keys(
    session: Session, tenant_id: str, after: str | None, limit: int
) -> tuple[Sequence[ApiKey], bool]:
    """Return a page of a tenant's keys, newest first; raise NotFound for an unknown tenant."""
    find_tenant(session, tenant_id)
    query = select(ApiKey).where(ApiKey.tenant_id == tenant_id)
    return page(session, query, ApiKey.id, after=after, limit=limit)


def create_key(session: Session, tenant: Tenant) -> tuple[ApiKey, str]:
    """Add a key; return its row and the secret, which is kept nowhere."""
    secret = new_secret()
    row = key_row(secret, tenant.id)
    session.add(row)
    session.flush()
    return row, secret


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """Stop a tenant's key from working; doing it again changes nothing."""
    query = select(ApiKey).where(ApiKey.id == key_id, ApiKey.tenant_id.is_not(None))
    row = session.scalar(query.with_for_update())
    if row is None:
        raise NotFound(f"No such key: {key_id}", "key_id")
    if row.revoked_at is None:
        row.revoked_at = session.scalar(select(func.clock_timestamp()))
    return row
