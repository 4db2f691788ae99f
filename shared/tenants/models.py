"""Tenants, their API keys, and the one way to a tenant's rows."""

from typing import Any, TypeVar

from sqlalchemy import CheckConstraint, Double, ForeignKey, Select, String, select
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from shared.db import CreatedAt, Id, Row, Timestamp


class Tenant(Row):
    """A company: everything it owns carries its id."""

    __tablename__ = "tenants"

    id: Mapped[Id]
    """``org-<ULID>``; also the OpenAI organization id."""
    name: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[CreatedAt]
    limits: Mapped[dict[str, Any] | None]
    """shared.tenants.limits.OwnLimits as JSON: what differs from the deployment's."""
    trained_seconds: Mapped[float] = mapped_column(Double, server_default="0")
    """Worker-seconds of its jobs, fading with time; see shared/jobs/usage.py."""
    trained_seconds_at: Mapped[Timestamp | None]
    """The time that ``trained_seconds`` is true of."""


class ApiKey(Row):
    """A secret that opens one tenant's routes, or the admin's. Only its hash is stored."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("(tenant_id IS NULL) = is_admin", name="admin_has_no_tenant"),
    )

    id: Mapped[Id]
    """``key_<ULID>``."""
    tenant_id: Mapped[str | None] = mapped_column(ForeignKey("tenants.id"), index=True)
    is_admin: Mapped[bool]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    """Hash of the whole key; keys carry 256 random bits, so no salt or stretching is needed."""
    hint: Mapped[str] = mapped_column(String(16))
    """The key's last four characters, for lists."""
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[Timestamp | None]

    def opens(self) -> bool:
        """Say whether the key still works."""
        return self.revoked_at is None


OwnedRow = TypeVar("OwnedRow", bound=Row)


def owned_by(tenant_id: str, table: type[OwnedRow]) -> Select[OwnedRow]:
    """Select a tenant's rows of ``table``: the only way services reach them.

    The database's row-level policies say the same again.
    """
    column: InstrumentedAttribute[str] = table.tenant_id  # type: ignore[attr-defined]
    return select(table).where(column == tenant_id)
