"""The account of the key that asks: its tenant, limits, usage and keys."""

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.api.account.schemas import AccountKeyOut, AccountOut, AccountUsage
from services.api.deps import LimitsDep, PartsDep, SessionDep, TenantDep
from services.api.files.room import stored_bytes
from services.api.jobs.service import NOT_STARTED
from services.api.json_body import ApiRoute
from services.api.models.service import callable_adapters
from shared.db import transaction
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State
from shared.tenants.models import ApiKey, Tenant, owned_by

router = APIRouter(prefix="/account", tags=["account"], route_class=ApiRoute)


@router.get("")
def show_account(
    parts: PartsDep, tenant_id: TenantDep, limits: LimitsDep, session: SessionDep
) -> AccountOut:
    """Show who the key belongs to, what that tenant may use and uses, and its keys."""
    # Tenants and keys are the system's: its role is asked for this tenant's alone.
    with transaction(parts.system_engine) as system:
        tenant = system.get_one(Tenant, tenant_id)
        working = owned_by(tenant_id, ApiKey).where(ApiKey.revoked_at.is_(None))
        keys = system.scalars(working.order_by(ApiKey.id)).all()
    return AccountOut(
        id=tenant.id,
        name=tenant.name,
        created_at=int(tenant.created_at.timestamp()),
        limits=limits,
        usage=_usage(session, tenant_id),
        keys=[
            AccountKeyOut(id=key.id, hint=key.hint, created_at=int(key.created_at.timestamp()))
            for key in keys
        ],
    )


def _usage(session: Session, tenant_id: str) -> AccountUsage:
    jobs = owned_by(tenant_id, FineTuningJob).subquery()
    waiting = func.count().filter(jobs.c.state.in_(NOT_STARTED))
    ended_well = jobs.c.state == State.SUCCEEDED
    tokens = func.coalesce(func.sum(jobs.c.trained_tokens).filter(ended_well), 0)
    number, queued, trained = session.execute(
        select(func.count(), waiting, tokens).select_from(jobs)
    ).one()
    models = callable_adapters(tenant_id).subquery()
    finals = select(func.count()).where(models.c.kind == "final")
    return AccountUsage(
        stored_bytes=stored_bytes(session, tenant_id),
        queued_jobs=queued,
        jobs=number,
        models=session.scalar(finals) or 0,
        trained_tokens=int(trained),
    )
