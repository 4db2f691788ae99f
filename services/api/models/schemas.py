"""Models as OpenAI shows them."""

from typing import Literal

from pydantic import BaseModel

from shared.adapters.models import Adapter
from shared.catalog import BaseModelEntry

BASE_CREATED = 1_760_000_000
"""Base models come with the installation; clients want a number here."""


class ModelOut(BaseModel):
    """One model that the tenant may call."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    shutdown_date: None = None

    @classmethod
    def of_base(cls, entry: BaseModelEntry) -> "ModelOut":
        """Show a base model of the catalog."""
        return cls(id=entry.name, created=BASE_CREATED, owned_by="tailor")

    @classmethod
    def of_adapter(cls, row: Adapter) -> "ModelOut":
        """Show a fine-tuned model."""
        created = int(row.created_at.timestamp())
        return cls(id=row.model, created=created, owned_by=row.tenant_id)


class ModelList(BaseModel):
    """All models; OpenAI does not page them."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


class ModelDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
