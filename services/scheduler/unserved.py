"""Tells the owner of what is queued that its base model is not served: nobody claims it."""

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, Engine, Select, exists, select

from shared.clock import Clock
from shared.comparisons import transitions as comparisons
from shared.comparisons.models import Comparison, ComparisonEvent
from shared.db import transaction
from shared.jobs import transitions as jobs
from shared.jobs.models import FineTuningJob, JobEvent

REASON = "base_not_served"


class Queued(NamedTuple):
    """What is queued, and how its owner is told."""

    name: str
    table: type[FineTuningJob] | type[Comparison]
    event: type[JobEvent] | type[ComparisonEvent]
    of_row: ColumnElement[bool]
    """Whether an event is a row's."""
    record: Callable[..., None]


JOBS = Queued("job", FineTuningJob, JobEvent, JobEvent.job_id == FineTuningJob.id, jobs.record)
COMPARISONS = Queued(
    "comparison",
    Comparison,
    ComparisonEvent,
    ComparisonEvent.comparison_id == Comparison.id,
    comparisons.record,
)


class Unserved:
    """The duty: one event for each stay of such a row in the queue.

    A base model counts as served for ``patience_seconds`` more: its process may be starting.
    """

    def __init__(
        self,
        engine: Engine,
        bases: Callable[[], Collection[str]],
        patience_seconds: float,
        kind: Queued = JOBS,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = f"unserved_{kind.name}s"
        self._engine = engine
        self._bases = bases
        self._patience = patience_seconds
        self._kind = kind
        self._clock = clock
        self._began = clock()
        self._served_at: dict[str, float] = {}

    def run(self) -> None:
        """Say it to those that have not been told since they were queued."""
        served, now = self._bases(), self._clock()
        self._served_at |= dict.fromkeys(served, now)
        if now - self._began < self._patience:
            return
        lately = [base for base, at in self._served_at.items() if now - at <= self._patience]
        self._tell(served, lately)

    def _tell(self, served: Collection[str], lately: Collection[str]) -> None:
        name, table, event, of_row, record = self._kind
        names = " and ".join(f"`{base}`" for base in served) or "no base model"
        told = exists().where(
            of_row,
            event.created_at >= table.state_changed_at,
            event.data["reason"].astext == REASON,
        )
        rows: Select[FineTuningJob | Comparison] = select(table)
        waiting = rows.where(
            table.state == "queued",
            table.base_model.not_in(lately),
            ~told,
        )
        with transaction(self._engine) as session:
            # One that is claimed or cancelled at this moment is told nothing.
            for row in session.scalars(waiting.with_for_update(skip_locked=True)).all():
                message = (
                    f"The {name} waits: this installation serves {names} now and not "
                    f"`{row.base_model}`. It goes on when that is served again; or cancel it"
                )
                record(session, row, message, level="warn", data={"reason": REASON})
