"""What the scheduler does for comparisons: lets those go on whose job has ended, and rings again.

Their leases are watched by ``Reap``, as those of jobs.
"""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Engine, func, select

from services.scheduler.rering import rings_due
from shared.comparisons.claim import claimable
from shared.comparisons.models import Comparison
from shared.comparisons.state import State
from shared.comparisons.transitions import move
from shared.db import transaction
from shared.jobs.models import FineTuningJob
from shared.jobs.state import TERMINAL
from shared.jobs.state import State as JobState
from shared.task_queue import COMPARE, outstanding, ring

if TYPE_CHECKING:
    from celery import Celery


class Follow:
    """The duty: a comparison that waits for a job is queued when it has succeeded, or ends."""

    name = "follow_jobs"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self) -> None:
        """Move every waiting comparison whose job has ended."""
        ended = (
            select(Comparison.id, FineTuningJob.state)
            .join(FineTuningJob, FineTuningJob.id == Comparison.job_id)
            .where(
                Comparison.state == State.WAITING,
                Comparison.deleted_at.is_(None),
                FineTuningJob.state.in_(TERMINAL),
            )
            # One that is cancelled at this moment is left to whoever cancels it.
            .with_for_update(of=Comparison, skip_locked=True)
        )
        with transaction(self._engine) as session:
            for comparison_id, job_state in session.execute(ended).all():
                if job_state == JobState.SUCCEEDED:
                    move(session, comparison_id, State.QUEUED, "The job has succeeded")
                    continue
                message = f"The job has {job_state}: there is no model to compare"
                error = {"code": f"job_{job_state}", "message": message, "param": "job"}
                move(session, comparison_id, State.FAILED, message, level="error", error=error)


class RingForComparisons:
    """The duty: rings for queued comparisons that nobody has claimed, as ``Rering`` for jobs."""

    name = "rering_comparisons"

    def __init__(
        self,
        engine: Engine,
        app: "Celery",
        age_seconds: float,
        bases: Callable[[], Collection[str]],
    ) -> None:
        self._engine = engine
        self._app = app
        self._age_seconds = age_seconds
        self._bases = bases

    def run(self) -> None:
        """Ring; raises when PostgreSQL or Redis is away."""
        age = timedelta(seconds=self._age_seconds)
        overdue = select(func.count()).where(
            claimable(self._bases()),
            Comparison.state_changed_at <= func.clock_timestamp() - age,
        )
        with transaction(self._engine) as session:
            number = session.scalars(overdue).one()
        if number:
            for _ in range(rings_due(number, outstanding(self._app, COMPARE, self._age_seconds))):
                ring(self._app, COMPARE)
