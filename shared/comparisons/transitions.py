"""The one door through which a comparison changes state, as shared/jobs/transitions.py for jobs.

Each move is ONE guarded UPDATE plus one event row in the same transaction. Zero rows changed means
somebody else owns the comparison: LeaseLost, keep nothing.
"""

from typing import Any

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from shared.comparisons.models import Comparison, ComparisonEvent
from shared.comparisons.state import SOURCES, TERMINAL, State
from shared.errors import LeaseLost
from shared.ids import new_id


def move(
    session: Session,
    comparison_id: str,
    to: State,
    message: str,
    *,
    attempt: int | None = None,
    new_attempt: bool = False,
    sources: frozenset[State] | None = None,
    level: str = "info",
    data: dict[str, Any] | None = None,
    **values: Any,
) -> Comparison:
    """Move a comparison to ``to`` and record the event; return the comparison as it now is.

    ``attempt`` fences a comparer's move; ``new_attempt`` (a claim) opens the next one; ``sources``
    narrows the table's; ``values`` are further columns (SQL expressions allowed). Raises LeaseLost
    when the guard finds no row, and ValueError when ``sources`` names a state the table does not
    allow.
    """
    allowed = SOURCES[to]
    if sources is not None and not sources <= allowed:
        raise ValueError(f"{to} cannot be entered from {sorted(sources - allowed)}")
    guard = [
        Comparison.id == comparison_id,
        Comparison.state.in_(sources or allowed),
        Comparison.deleted_at.is_(None),
    ]
    if attempt is not None:
        guard.append(Comparison.attempt == attempt)
    if new_attempt:
        values["attempt"] = Comparison.attempt + 1
    if to in TERMINAL:
        values.setdefault("finished_at", func.clock_timestamp())
    comparison = session.scalar(
        update(Comparison)
        .where(*guard)
        .values(state=to, state_changed_at=func.clock_timestamp(), **values)
        .returning(Comparison)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if comparison is None:
        raise LeaseLost(f"comparison {comparison_id} is no longer ours to move to {to}")
    record(session, comparison, message, state=to, level=level, data=data)
    return comparison


def record(
    session: Session,
    comparison: Comparison,
    message: str,
    *,
    type: str = "message",  # noqa: A002  OpenAI's field name
    state: State | None = None,
    level: str = "info",
    data: dict[str, Any] | None = None,
) -> None:
    """Add one event to a comparison's feed; never a row's text."""
    session.add(
        ComparisonEvent(
            id=new_id("cmpevent-"),
            tenant_id=comparison.tenant_id,
            comparison_id=comparison.id,
            attempt=comparison.attempt,
            state=state,
            level=level,
            type=type,
            message=message,
            data=data,
        )
    )
    session.flush()
