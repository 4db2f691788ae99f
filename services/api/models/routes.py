"""Models: list, retrieve, delete. Names may hold a slash, so they are path parameters."""

from fastapi import APIRouter

from services.api.contract import errors
from services.api.deps import Parts, PartsDep, SessionDep, TenantDep
from services.api.json_body import ApiRoute
from services.api.models import service
from services.api.models.schemas import ModelDeleted, ModelList, ModelOut
from shared.adapters.models import Adapter
from shared.errors import NotFound

router = APIRouter(prefix="/models", tags=["models"], route_class=ApiRoute)


@router.get("")
def list_models(parts: PartsDep, tenant_id: TenantDep, session: SessionDep) -> ModelList:
    """List the base models that are served and the tenant's own, newest first."""
    bases = [ModelOut.of_base(base) for base in service.served_bases(parts)]
    own = [_shown(parts, row) for row in service.adapters(session, tenant_id)]
    return ModelList(data=[*bases, *own])


@router.get("/{model:path}", responses=errors(NotFound))
def retrieve_model(
    model: str, parts: PartsDep, tenant_id: TenantDep, session: SessionDep
) -> ModelOut:
    """Show one model."""
    base = service.find_base(parts, model)
    if base is not None:
        return ModelOut.of_base(base)
    return _shown(parts, service.find_adapter(session, tenant_id, model))


@router.delete("/{model:path}", responses=errors(NotFound))
def delete_model(
    model: str, parts: PartsDep, tenant_id: TenantDep, session: SessionDep
) -> ModelDeleted:
    """Delete one of the tenant's fine-tuned models, and with it its job's checkpoints."""
    service.delete(session, tenant_id, model, is_base=model in parts.catalog)
    return ModelDeleted(id=model)


def _shown(parts: Parts, row: Adapter) -> ModelOut:
    return ModelOut.of_adapter(row, service.why_unavailable(parts, row))
