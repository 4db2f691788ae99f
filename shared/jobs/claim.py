"""Choosing the next job: PostgreSQL decides, the doorbell only wakes the one who asks.

First the tenant that has trained least lately, with what runs now; then priority, then age. Under
an advisory lock for the queue: the choice counts other rows, so two claimers without the lock would
both see the same free share.
"""

from collections.abc import Collection
from contextlib import suppress

from sqlalchemy import ScalarSelect, Select, func, or_, select
from sqlalchemy.orm import Session, aliased

from shared.errors import LeaseLost
from shared.jobs.models import FineTuningJob
from shared.jobs.state import LEASED, State
from shared.jobs.transitions import move
from shared.jobs.usage import RUNNING_SECONDS, recent_usage
from shared.tenants.models import Tenant

CHOICES = 10
"""Give up after so many picks were cancelled under our hands; the next doorbell tries again."""


def claim_next(
    session: Session, queue: str, owner: str, bases: Collection[str] | None = None
) -> FineTuningJob | None:
    """Claim the best queued job of ``queue`` as a new attempt of ``owner``; None when none is due.

    ``bases`` are the base models whose jobs may be claimed; None allows all.
    The new attempt counts as fruitless until it passes the job's highest step
    (shared/jobs/lease.py), so that it is counted however it ends. A job that is cancelled at this
    moment is passed over.
    """
    # Held until the caller's transaction ends, so that the next claimer counts this claim.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"claim:{queue}"))))
    for _ in range(CHOICES):
        job_id = session.scalar(_best(queue, bases))
        if job_id is None:
            return None
        # ``move`` is guarded by the state: a job cancelled since ``_best`` read it is not found.
        with suppress(LeaseLost):
            return _take(session, job_id, owner)
    return None


def _take(session: Session, job_id: str, owner: str) -> FineTuningJob:
    return move(
        session,
        job_id,
        State.STARTING,
        "A worker has taken the job",
        # Fences every earlier holder of the job: their writes carry a lower number.
        new_attempt=True,
        lease_owner=owner,
        lease_charged_at=func.clock_timestamp(),
        not_before=None,
        fruitless_attempts=FineTuningJob.fruitless_attempts + 1,
    )


def _best(queue: str, bases: Collection[str] | None) -> Select[str]:
    served = [] if bases is None else [FineTuningJob.base_model.in_(bases)]
    return (
        select(FineTuningJob.id)
        .join(Tenant, Tenant.id == FineTuningJob.tenant_id)
        .where(
            *served,
            FineTuningJob.queue == queue,
            FineTuningJob.state == State.QUEUED,
            or_(
                FineTuningJob.not_before.is_(None),
                FineTuningJob.not_before <= func.clock_timestamp(),
            ),
        )
        .order_by(
            # Usage is charged with each heartbeat, so a job that was claimed just now has cost
            # nothing yet. Counted as if it had run a while, it keeps a tenant's whole queue from
            # being claimed in one moment by as many workers as are free.
            recent_usage() + RUNNING_SECONDS * _running_of_its_tenant(),
            # Only among jobs of one tenant, or of tenants with equal usage.
            FineTuningJob.priority.desc(),
            # Ids break the tie, so that the choice never depends on the plan of the query.
            FineTuningJob.created_at,
            FineTuningJob.id,
        )
        .limit(1)
    )


def _running_of_its_tenant() -> ScalarSelect[int]:
    running = aliased(FineTuningJob)
    return (
        select(func.count())
        .where(running.tenant_id == FineTuningJob.tenant_id, running.state.in_(LEASED))
        .correlate(FineTuningJob)
        .scalar_subquery()
    )
