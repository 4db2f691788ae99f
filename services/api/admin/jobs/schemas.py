"""A job as the administrator sees it: where it is and who holds it, nothing of its data."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from shared.jobs.models import FineTuningJob


class AdminJobOut(BaseModel):
    """One job of any tenant. ``state`` is finer than the ``status`` that its owner sees."""

    id: str
    object: Literal["admin.fine_tuning.job"] = "admin.fine_tuning.job"
    tenant_id: str
    model: str
    status: str
    state: str
    created_at: int
    state_changed_at: int
    finished_at: int | None
    attempt: int
    lease_owner: str | None
    """The worker that holds the job, or held it last."""
    not_before: int | None
    """No worker takes it before this time."""
    crashes: int
    fruitless_attempts: int
    progress: dict[str, Any] | None
    error: dict[str, Any] | None

    @classmethod
    def of(cls, row: FineTuningJob) -> "AdminJobOut":
        """Show a row."""
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            model=row.base_model,
            status=row.public_status,
            state=row.state,
            created_at=int(row.created_at.timestamp()),
            state_changed_at=int(row.state_changed_at.timestamp()),
            finished_at=_seconds(row.finished_at),
            attempt=row.attempt,
            lease_owner=row.lease_owner,
            not_before=_seconds(row.not_before),
            crashes=row.crashes,
            fruitless_attempts=row.fruitless_attempts,
            progress=row.progress,
            error=row.error,
        )


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None
