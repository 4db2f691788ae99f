"""Tenants and keys as the administrator sees them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from shared.tenants.models import ApiKey, Tenant

TenantName = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$"
    ),
]


class TenantIn(BaseModel):
    """A company to be."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "acme"}]})

    name: TenantName


class KeyOut(BaseModel):
    """One API key, without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    tenant_id: str | None
    hint: str
    """The key's last four characters."""
    created_at: int
    revoked_at: int | None

    @classmethod
    def of(cls, row: ApiKey) -> "KeyOut":
        """Show a row."""
        return cls(**_fields(row))


class NewKeyOut(KeyOut):
    """A key just made: the only time that its secret is shown."""

    api_key: str
    """The secret itself."""

    @classmethod
    def of_new(cls, row: ApiKey, secret: str) -> "NewKeyOut":
        """Show a row with its secret."""
        return cls(**_fields(row), api_key=secret)


class TenantOut(BaseModel):
    """One tenant."""

    id: str
    object: Literal["tenant"] = "tenant"
    name: str
    created_at: int

    @classmethod
    def of(cls, row: Tenant) -> "TenantOut":
        """Show a row."""
        return cls(id=row.id, name=row.name, created_at=int(row.created_at.timestamp()))


class NewTenantOut(TenantOut):
    """A tenant just made, with its first key."""

    api_key: str
    """The first key's secret."""
    api_key_id: str


def _fields(row: ApiKey) -> dict[str, Any]:
    return {
        "id": row.id,
        "tenant_id": row.tenant_id,
        "hint": row.hint,
        "created_at": _seconds(row.created_at),
        "revoked_at": _seconds(row.revoked_at),
    }


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None
