"""API keys: ``tl-…`` for tenants, ``tl-admin-…`` for the administrator; only hashes are kept."""

import hashlib
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.ids import new_id
from shared.tenants.models import ApiKey


def new_secret(*, admin: bool = False) -> str:
    """Return a fresh key with 256 random bits."""
    return ("tl-admin-" if admin else "tl-") + secrets.token_urlsafe(32)


def key_row(secret: str, tenant_id: str | None) -> ApiKey:
    """Build the row that recognises ``secret``; no tenant means the administrator's key."""
    return ApiKey(
        id=new_id("key_"),
        tenant_id=tenant_id,
        is_admin=tenant_id is None,
        sha256=hash_of(secret),
        hint=secret[-4:],
    )


def find_key(session: Session, secret: str) -> ApiKey | None:
    """Return the working key that ``secret`` is, if any (system role)."""
    row = session.scalar(select(ApiKey).where(ApiKey.sha256 == hash_of(secret)))
    return row if row is not None and row.opens() else None


def hash_of(secret: str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()
