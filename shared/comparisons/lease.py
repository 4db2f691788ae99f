"""The lease of a comparison: a number that a comparer moves and the scheduler watches.

An attempt counts as fruitless from its claim until it has answered more questions than any before
it; too many in a row, and the comparison is given up.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from shared.comparisons.models import Comparison
from shared.comparisons.state import LEASED, State
from shared.comparisons.transitions import move
from shared.jobs.lease import HeldLease

FRUITLESS_LIMIT = 20
"""So many attempts in a row without a new answer, and the comparison failed."""
RESTLESS_ATTEMPTS = 5
REST_SECONDS = 60.0
"""From so many on it lets others go first for a while: it may be what ends its comparers."""


def renew(
    session: Session, comparison_id: str, attempt: int, progress: dict[str, Any] | None = None
) -> State | None:
    """Move the lease on, store ``progress``; return the state, None when it is not ours.

    More questions asked (``progress["asked"]``) than ever forgive the fruitless attempts before.
    """
    values: dict[str, Any] = {"lease_seq": Comparison.lease_seq + 1}
    if progress is not None:
        passed = Comparison.most_asked < progress["asked"]
        values |= {
            "progress": progress,
            "most_asked": func.greatest(Comparison.most_asked, progress["asked"]),
            "fruitless_attempts": case((passed, 0), else_=Comparison.fruitless_attempts),
        }
    return session.scalar(
        update(Comparison)
        .where(
            Comparison.id == comparison_id,
            Comparison.attempt == attempt,
            Comparison.state.in_(LEASED),
            Comparison.deleted_at.is_(None),
        )
        .values(values)
        .returning(Comparison.state)
        .execution_options(synchronize_session=False)
    )


def held_leases(session: Session) -> list[HeldLease]:
    """Return every leased comparison with its lease number."""
    rows = session.execute(
        select(Comparison.id, Comparison.attempt, Comparison.lease_seq).where(
            Comparison.state.in_(LEASED), Comparison.deleted_at.is_(None)
        )
    )
    return [HeldLease(*row) for row in rows]


def expire(session: Session, lease: HeldLease) -> State | None:
    """Take it from a holder that stopped renewing; None when the lease has moved after all."""
    comparison = session.scalar(
        select(Comparison)
        .where(
            Comparison.id == lease.job_id,
            Comparison.attempt == lease.attempt,
            Comparison.lease_seq == lease.seq,
            Comparison.state.in_(LEASED),
            Comparison.deleted_at.is_(None),
        )
        .with_for_update()
    )
    if comparison is None:
        return None
    if comparison.state == State.CANCELLING:
        message = "The comparer was lost; the comparison is cancelled"
        move(session, comparison.id, State.CANCELLED, message, attempt=comparison.attempt)
        return State.CANCELLED
    message = "The comparer was lost; the comparison goes back to the queue"
    return State(requeue(session, comparison, message).state)


def requeue(
    session: Session,
    comparison: Comparison,
    message: str,
    *,
    delay_seconds: float = 0,
    counted: bool = True,
) -> Comparison:
    """Send a held comparison back to the queue, or fail it after too many fruitless attempts.

    ``comparison`` names the attempt that fences the move; its counter is read afresh. An attempt
    that is not ``counted`` was drained, or waited for others.
    """
    fruitless = session.scalars(
        select(Comparison.fruitless_attempts).where(Comparison.id == comparison.id)
    ).one()
    values: dict[str, Any] = {}
    if not counted:
        values["fruitless_attempts"] = func.greatest(Comparison.fruitless_attempts - 1, 0)
    elif fruitless >= FRUITLESS_LIMIT:
        return _fail_as_poisoned(session, comparison, fruitless)
    elif fruitless >= RESTLESS_ATTEMPTS:
        delay_seconds = max(delay_seconds, REST_SECONDS)
    if delay_seconds:
        values["not_before"] = func.clock_timestamp() + timedelta(seconds=delay_seconds)
    return move(
        session,
        comparison.id,
        State.QUEUED,
        message,
        attempt=comparison.attempt,
        level="warn",
        lease_owner=None,
        **values,
    )


def _fail_as_poisoned(session: Session, comparison: Comparison, fruitless: int) -> Comparison:
    message = (
        f"The comparison was given up: {fruitless} attempts in a row answered no further question"
    )
    return move(
        session,
        comparison.id,
        State.FAILED,
        message,
        attempt=comparison.attempt,
        level="error",
        error={"code": "poisoned", "message": message, "param": None},
    )
