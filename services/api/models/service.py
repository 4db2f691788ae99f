"""Which models a tenant may train on and call: the served bases and its own adapters."""

from collections.abc import Sequence

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from services.api.deps import Parts
from shared.adapters.models import Adapter
from shared.catalog import BaseModelEntry
from shared.errors import InvalidRequest, NotFound, PermissionDenied, TailorError
from shared.tenants.models import owned_by

NOT_SERVED = "base_not_served"
"""Code: the model exists, and no inference process answers for its base model."""


def served_bases(parts: Parts) -> list[BaseModelEntry]:
    """Return the base models that some inference process answers for, in the catalog's order.

    Others may be installed; what is trained on them could not be called. One whose weights, profile
    or template are no longer those that were proven is not offered.
    """
    served = parts.replicas.served()
    return [
        entry
        for entry in parts.catalog
        if entry.name in served and entry.offered(parts.settings.models_dir)
    ]


def find_base(parts: Parts, name: str) -> BaseModelEntry | None:
    """Return the served base model that is called ``name``."""
    return next((entry for entry in served_bases(parts) if entry.name == name), None)


def callable_adapters(tenant_id: str) -> Select[Adapter]:
    """Select a tenant's fine-tuned models that are not deleted."""
    return owned_by(tenant_id, Adapter).where(Adapter.deleted_at.is_(None))


def adapters(session: Session, tenant_id: str) -> Sequence[Adapter]:
    """Return a tenant's fine-tuned models, newest first."""
    query = callable_adapters(tenant_id).order_by(Adapter.created_at.desc())
    return session.scalars(query).all()


def find_adapter(session: Session, tenant_id: str, name: str) -> Adapter:
    """Return the tenant's fine-tuned model called ``name``; raise NotFound."""
    adapter = session.scalar(callable_adapters(tenant_id).where(Adapter.model == name))
    if adapter is None:
        raise unknown_model(name)
    return adapter


def delete(session: Session, tenant_id: str, name: str, *, is_base: bool) -> None:
    """Mark a fine-tuned model as deleted: nobody can call it from now on.

    Its job's checkpoints go with it: the last one may be the very same weights under another name.
    A checkpoint is deleted alone.
    """
    if is_base:
        raise PermissionDenied("Base models belong to the installation.", "model")
    adapter = find_adapter(session, tenant_id, name)
    gone = [adapter]
    if adapter.kind == "final" and adapter.job_id:
        of_job = callable_adapters(tenant_id).where(Adapter.job_id == adapter.job_id)
        gone = list(session.scalars(of_job))
    at = session.scalar(select(func.clock_timestamp()))
    for row in gone:
        row.deleted_at = at


def why_unavailable(parts: Parts, adapter: Adapter) -> str | None:
    """Say why inference cannot answer for a fine-tuned model now; None where it can."""
    if adapter.base_model in parts.replicas.served():
        return None
    return _elsewhere(parts, f"The model was trained on `{adapter.base_model}`")


def base_not_served(parts: Parts, name: str) -> TailorError:
    """Build the answer for a model that is wanted as a base and is not served."""
    # Said of every such name, so that nobody learns whether another tenant's model exists.
    if name.startswith("ft:"):
        return InvalidRequest(
            "Training starts from a base model; to go on from a fine-tuned one is not supported. "
            "Train the base again with all rows.",
            "model",
            "model_not_trainable",
        )
    if name in parts.replicas.served():
        return InvalidRequest(
            f"`{name}` is not offered: it is not installed, or not proven as it is now. Its "
            f"administrator runs `tailor model check {name}`.",
            "model",
            NOT_SERVED,
        )
    if name in parts.catalog:
        return InvalidRequest(_elsewhere(parts, f"`{name}` is not served"), "model", NOT_SERVED)
    error = unknown_model(name)
    message = f"{error.message} Fine-tuning is offered on {_offered(parts)}."
    return NotFound(message, error.param, error.code)


def _elsewhere(parts: Parts, what: str) -> str:
    return (
        f"{what}; this installation serves {_offered(parts)} now. Train on that, or ask its "
        "administrator for the other (`tailor up --model`, or an inference process more)."
    )


def _offered(parts: Parts) -> str:
    return " and ".join(f"`{entry.name}`" for entry in served_bases(parts)) or "no base model"


def unknown_model(name: str) -> NotFound:
    """Build the one answer for a model that is missing and for one that is another tenant's."""
    return NotFound(
        f"The model `{name}` does not exist or you do not have access to it.",
        "model",
        "model_not_found",
    )
