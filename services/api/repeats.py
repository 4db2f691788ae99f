"""Creating once: a repeated request finds what the first one made; and queues have an end."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from services.api.rate_limits import LimitReached
from shared.comparisons.models import Comparison
from shared.errors import Conflict
from shared.jobs.models import FineTuningJob
from shared.tenants.models import owned_by

Created = TypeVar("Created", FineTuningJob, Comparison)


@dataclass(frozen=True)
class Repeat:
    """How the client may be repeating itself."""

    key: str | None
    """Its Idempotency-Key."""
    is_retry: bool
    """The official client says so without sending a key."""
    window_seconds: float


def digest_of(asked: BaseModel) -> str:
    """Return what two identical requests have in common."""
    return hashlib.sha256(asked.model_dump_json().encode()).hexdigest()


def find_earlier(
    session: Session, tenant_id: str, table: type[Created], digest: str, repeat: Repeat
) -> Created | None:
    """Find what an identical earlier request made; only one of several at once gets past."""
    # Also a first try takes the lock: its retry may arrive before it is committed.
    subject = f"{tenant_id}\n{repeat.key or digest}"
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"), {"subject": subject}
    )
    if repeat.key is None and not repeat.is_retry:
        return None
    mine = owned_by(tenant_id, table)
    if repeat.key is None:
        since = func.clock_timestamp() - timedelta(seconds=repeat.window_seconds)
        recent = mine.where(table.request_sha256 == digest, table.created_at > since)
        return session.scalar(recent.order_by(table.created_at.desc()).limit(1))
    found = session.scalar(mine.where(table.idempotency_key == repeat.key))
    if found is not None and found.request_sha256 != digest:
        raise Conflict(
            "This Idempotency-Key was used for a different request.",
            "Idempotency-Key",
            "idempotency_key_reused",
        )
    return found


def refuse_a_long_queue(
    session: Session,
    tenant_id: str,
    table: type[Created],
    waiting_states: Collection[str],
    most_queued: int,
) -> None:
    """Raise LimitReached when ``most_queued`` of the tenant's wait already."""
    name = table.__tablename__
    # One request at a time, or several would each see the last free place.
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"),
        {"subject": f"queued {name} of {tenant_id}"},
    )
    waiting = owned_by(tenant_id, table).where(table.state.in_(waiting_states))
    if (session.scalar(select(func.count()).select_from(waiting.subquery())) or 0) >= most_queued:
        kind = "jobs" if table is FineTuningJob else "comparisons"
        raise LimitReached.of(
            f"At most {most_queued} of your {kind} may wait at a time; cancel one, or wait.",
            f"queued_{kind}_exceeded",
            60,
            {"x-should-retry": "false"},
        )
