"""Which models a tenant may train on and call: the installed bases and its own adapters."""

from pathlib import Path

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from shared.adapters.models import Adapter
from shared.catalog import BaseModelEntry, Catalog
from shared.errors import NotFound, PermissionDenied
from shared.tenants.models import owned_by


def installed_bases(catalog: Catalog, models_dir: Path) -> list[BaseModelEntry]:
    """Return the catalog's models whose weights set-up has laid down."""
    return [entry for entry in catalog if _installed(entry, models_dir)]


def find_base(catalog: Catalog, models_dir: Path, name: str) -> BaseModelEntry | None:
    """Return the installed base model called ``name``, if there is one."""
    entry = catalog.get(name) if name in catalog else None
    return entry if entry and _installed(entry, models_dir) else None


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
