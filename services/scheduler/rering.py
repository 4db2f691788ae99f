"""Rings again for queued jobs that nobody has claimed: doorbells may be lost, jobs may not.

Never more rings than there are such jobs less the rings already on their way, so that a long queue
behind one busy worker does not pile up messages.
"""

import logging
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Engine, func, select

from shared.db import transaction
from shared.jobs.claim import claimable
from shared.jobs.models import FineTuningJob
from shared.task_queue import Outstanding, outstanding, ring
from shared.telemetry import log_event

if TYPE_CHECKING:
    from celery import Celery

MOST_RINGS = 100

log = logging.getLogger(__name__)


def rings_due(overdue: int, bells: Outstanding) -> int:
    """Return how many rings ``overdue`` jobs still need."""
    return max(0, min(overdue, MOST_RINGS) - bells.waiting - bells.in_hand)


class Rering:
    """The duty."""

    name = "rering"

    def __init__(
        self,
        engine: Engine,
        app: "Celery",
        age_seconds: float,
        bases: Callable[[], Collection[str]],
    ) -> None:
        """``bases`` says whose jobs workers claim now."""
        self._engine = engine
        self._bases = bases
        self._app = app
        self._age_seconds = age_seconds

    def run(self) -> None:
        """Ring for the overdue jobs of every queue; raises when PostgreSQL or Redis is away."""
        for queue, overdue in self._overdue().items():
            due = rings_due(overdue, outstanding(self._app, queue, self._age_seconds))
            rung = 0
            while rung < due and ring(self._app, queue):
                rung += 1
            if due:
                data = {"queue": queue, "overdue": overdue, "rings": rung}
                log.info("rang again", extra=log_event("rang_again", **data))

    def _overdue(self) -> dict[str, int]:
        """Count, by queue, the jobs queued for ``age_seconds`` that may be claimed now."""
        age = timedelta(seconds=self._age_seconds)
        with transaction(self._engine) as session:
            rows = session.execute(
                select(FineTuningJob.queue, func.count())
                .where(
                    claimable(self._bases()),
                    FineTuningJob.state_changed_at <= func.clock_timestamp() - age,
                )
                .group_by(FineTuningJob.queue)
            )
            return dict(rows.all())
