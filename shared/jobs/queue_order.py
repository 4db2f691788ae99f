"""In which order queued jobs would be claimed if nothing changed but the claims themselves.

The rule is claim.py's; here it is applied again and again, each claimed job taken to run on. Jobs
that end, and usage that fades or grows, change the order: a place is an estimate.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.jobs.models import FineTuningJob
from shared.jobs.state import LEASED, State
from shared.jobs.usage import RUNNING_SECONDS, recent_usage
from shared.tenants.models import Tenant


@dataclass(frozen=True)
class Waiting:
    """A queued job; ``order`` sorts those of one tenant, and breaks ties between tenants."""

    job_id: str
    tenant_id: str
    order: tuple[object, ...]


def places(waiting: Sequence[Waiting], usage: Mapping[str, float]) -> dict[str, int]:
    """Return each job's place, from 1, by ``usage`` of its tenant with what runs counted in."""
    queues: dict[str, list[Waiting]] = {}
    for job in sorted(waiting, key=lambda job: job.order, reverse=True):
        queues.setdefault(job.tenant_id, []).append(job)
    heads = [(usage.get(tenant, 0.0), jobs[-1].order, tenant) for tenant, jobs in queues.items()]
    heapq.heapify(heads)
    found: dict[str, int] = {}
    while heads:
        used, _, tenant = heapq.heappop(heads)
        found[queues[tenant].pop().job_id] = len(found) + 1
        if queues[tenant]:
            order = queues[tenant][-1].order
            heapq.heappush(heads, (used + RUNNING_SECONDS, order, tenant))
    return found


def read_places(session: Session) -> dict[str, int]:
    """Return the place of every queued job of every tenant; needs the system's role."""
    running = (
        select(func.count(FineTuningJob.id))
        .where(FineTuningJob.tenant_id == Tenant.id, FineTuningJob.state.in_(LEASED))
        .scalar_subquery()
    )
    queued = session.execute(
        select(
            FineTuningJob.id,
            FineTuningJob.tenant_id,
            FineTuningJob.priority,
            FineTuningJob.created_at,
        ).where(FineTuningJob.state == State.QUEUED)
    ).all()
    if not queued:
        return {}
    tenants = {tenant for _, tenant, _, _ in queued}
    usage = {
        tenant: float(used)
        for tenant, used in session.execute(
            select(Tenant.id, recent_usage() + RUNNING_SECONDS * running).where(
                Tenant.id.in_(tenants)
            )
        )
    }
    waiting = [Waiting(job, tenant, (-first, at, job)) for job, tenant, first, at in queued]
    return places(waiting, usage)
