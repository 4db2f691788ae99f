"""Models as OpenAI shows them."""

from typing import Literal

from pydantic import BaseModel

from shared.adapters.models import Adapter
from shared.catalog import BaseModelEntry

BASE_CREATED = 1_760_000_000
"""Base models come with the installation; clients want a number here."""


class ModelOut(BaseModel):
    """One model of the tenant's. The last two are Tailor's own keys."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    shutdown_date: None = None
    available: bool = True
    """False: it is kept, but cannot be called as the installation is now."""
    unavailable_reason: str | None = None

    @classmethod
    def of_base(cls, entry: BaseModelEntry) -> "ModelOut":
        """Show a base model of the catalog."""
        return cls(id=entry.name, created=BASE_CREATED, owned_by="tailor")

    @classmethod
    def of_adapter(cls, row: Adapter, why_unavailable: str | None) -> "ModelOut":
        """Show a fine-tuned model, and why it cannot be called where that is so."""
        return cls(
            id=row.model,
            created=int(row.created_at.timestamp()),
            owned_by=row.tenant_id,
            available=why_unavailable is None,
            unavailable_reason=why_unavailable,
        )


class ModelList(BaseModel):
    """All models; OpenAI does not page them."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


class ModelDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
