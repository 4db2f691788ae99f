"""Which models a tenant may train on and call: the served base and its own adapters."""

from pathlib import Path

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from services.api.settings import ApiSettings
from shared.adapters.models import Adapter
from shared.catalog import BaseModelEntry, Catalog
from shared.errors import NotFound, PermissionDenied
from shared.tenants.models import owned_by


def served_base(catalog: Catalog, settings: ApiSettings) -> BaseModelEntry | None:
    """Return the base model that inference answers for, if set-up has laid down its weights.

    Others may be installed; what is trained on them could not be called.
    """
    name = settings.inference_base_model
    entry = catalog.get(name) if name in catalog else None
    return entry if entry and _installed(entry, settings.models_dir) else None


def find_base(catalog: Catalog, settings: ApiSettings, name: str) -> BaseModelEntry | None:
    """Return the served base model if it is called ``name``."""
    entry = served_base(catalog, settings)
    return entry if entry and entry.name == name else None


def callable_adapters(tenant_id: str) -> Select[Adapter]:
    """Select a tenant's fine-tuned models that are not deleted."""
    return owned_by(tenant_id, Adapter).where(Adapter.deleted_at.is_(None))


def find_adapter(session: Session, tenant_id: str, name: str) -> Adapter:
    """Return the tenant's fine-tuned model called ``name``; raise NotFound."""
    adapter = session.scalar(callable_adapters(tenant_id).where(Adapter.model == name))
    if adapter is None:
        raise unknown_model(name)
    return adapter


def delete(session: Session, tenant_id: str, name: str, *, is_base: bool) -> None:
    """Mark a fine-tuned model as deleted: nobody can call it from now on."""
    if is_base:
        raise PermissionDenied("Base models belong to the installation.", "model")
    adapter = find_adapter(session, tenant_id, name)
    adapter.deleted_at = session.scalar(select(func.clock_timestamp()))


def unknown_model(name: str) -> NotFound:
    """Build the one answer for a model that is missing and for one that is another tenant's."""
    return NotFound(
        f"The model `{name}` does not exist or you do not have access to it.",
        "model",
        "model_not_found",
    )


def _installed(entry: BaseModelEntry, models_dir: Path) -> bool:
    return (entry.folder(models_dir) / "config.json").is_file()
