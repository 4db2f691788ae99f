"""Whether an upload may come in: the tenant's share of the disk, and what is left of the disk."""

import shutil

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.api.deps import Parts
from services.api.rate_limits import LimitReached
from shared.db import tenant_transaction
from shared.errors import InsufficientStorage
from shared.files.models import StoredFile
from shared.tenants.models import owned_by


def check_room(parts: Parts, tenant_id: str, most_bytes: int, coming: int) -> None:
    """Raise LimitReached or InsufficientStorage, before a byte of the body is read.

    ``coming`` is the announced size in bytes, 0 where a client announces none: such an upload may
    pass the limit once.
    """
    free = shutil.disk_usage(parts.store.root).free
    if free - coming < parts.settings.min_free_bytes:
        raise InsufficientStorage("The disk of this Tailor is nearly full; tell its administrator.")
    with tenant_transaction(parts.tenant_engine, tenant_id) as session:
        stored = stored_bytes(session, tenant_id)
    if stored + coming > most_bytes:
        raise LimitReached.of(
            f"Your files take {stored} bytes, and with this one they would take more than the"
            f" {most_bytes} that are yours. Delete some; their room is free within a minute.",
            "storage_limit_exceeded",
            60,
            {"x-should-retry": "false"},
        )


def stored_bytes(session: Session, tenant_id: str) -> int:
    """Return what a tenant's files take on the disk."""
    kept = owned_by(tenant_id, StoredFile).where(StoredFile.erased_at.is_(None)).subquery()
    return int(session.scalar(select(func.sum(kept.c.bytes))) or 0)
