"""Tells the owner of what is queued that its base model is not served: nobody claims it."""

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import ColumnElement, Engine, Select, exists, select

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
    """The duty: one event for each stay of such a row in the queue."""

    def __init__(self, engine: Engine, base_model: str, kind: Queued = JOBS) -> None:
        self.name = f"unserved_{kind.name}s"
        self._engine = engine
        self._base_model = base_model
        self._kind = kind

    def run(self) -> None:
        """Say it to those that have not been told since they were queued."""
        name, table, event, of_row, record = self._kind
        told = exists().where(
            of_row,
            event.created_at >= table.state_changed_at,
            event.data["reason"].astext == REASON,
        )
        rows: Select[FineTuningJob | Comparison] = select(table)
        waiting = rows.where(
            table.state == "queued",
            table.base_model != self._base_model,
            ~told,
        )
        with transaction(self._engine) as session:
            # One that is claimed or cancelled at this moment is told nothing.
            for row in session.scalars(waiting.with_for_update(skip_locked=True)).all():
                message = (
                    f"The {name} waits: this installation serves `{self._base_model}` and not "
                    f"`{row.base_model}`. It goes on when that is served again; or cancel it"
                )
                record(session, row, message, level="warn", data={"reason": REASON})
