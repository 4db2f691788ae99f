"""Choosing the next comparison: the tenant with the fewest running, then served longest ago."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, func, or_, select, true
from sqlalchemy.orm import Session, aliased

from shared.comparisons.models import Comparison
from shared.comparisons.state import LEASED, State
from shared.comparisons.transitions import move
from shared.errors import LeaseLost

QUEUE = "compare"
"""The Celery queue whose rings say "compare next"."""
CHOICES = 10
"""Give up after so many picks were cancelled under our hands; the next doorbell tries again."""


def claim_next(
    session: Session, owner: str, bases: Collection[str] | None = None
) -> Comparison | None:
    """Claim the best queued comparison as a new attempt of ``owner``; None when none is due.

    ``bases`` are the base models that are served; None allows all.
    """
    # Held until the caller's transaction ends, so that the next claimer counts this claim.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"claim:{QUEUE}"))))
    for _ in range(CHOICES):
        comparison_id = session.scalar(_best(bases))
        if comparison_id is None:
            return None
        with suppress(LeaseLost):
            return _take(session, comparison_id, owner)
    return None


def claimable(bases: Collection[str] | None) -> ColumnElement[bool]:
    """Say of a comparison whether a comparer for ``bases`` (None: all) may claim it now."""
    return and_(
        true() if bases is None else Comparison.base_model.in_(bases),
        Comparison.state == State.QUEUED,
        Comparison.deleted_at.is_(None),
        # The database's clock: those of the comparers may differ.
        or_(Comparison.not_before.is_(None), Comparison.not_before <= func.clock_timestamp()),
    )


def _take(session: Session, comparison_id: str, owner: str) -> Comparison:
    return move(
        session,
        comparison_id,
        State.RUNNING,
        "The comparison has begun, or goes on",
        # Fences every earlier holder: their writes carry a lower number.
        new_attempt=True,
        lease_owner=owner,
        not_before=None,
        started_at=func.coalesce(Comparison.started_at, func.clock_timestamp()),
        fruitless_attempts=Comparison.fruitless_attempts + 1,
    )


def _best(bases: Collection[str] | None) -> Select[str]:
    return (
        select(Comparison.id)
        .where(claimable(bases))
        .order_by(
            _running_of_its_tenant(),
            _last_begun_of_its_tenant().nulls_first(),
            Comparison.created_at,
            # Ids break the tie, so that the choice never depends on the plan of the query.
            Comparison.id,
        )
        .limit(1)
    )


def _running_of_its_tenant() -> ScalarSelect[int]:
    other = aliased(Comparison)
    return (
        select(func.count())
        .where(other.tenant_id == Comparison.tenant_id, other.state.in_(LEASED))
        .correlate(Comparison)
        .scalar_subquery()
    )


def _last_begun_of_its_tenant() -> ScalarSelect[Any]:
    other = aliased(Comparison)
    return (
        select(func.max(other.state_changed_at))
        .where(other.tenant_id == Comparison.tenant_id, other.attempt > 0)
        .correlate(Comparison)
        .scalar_subquery()
    )
