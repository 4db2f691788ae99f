"""The one task: hear a ring, claim, run, return. One ring, one claim; the scheduler rings again."""

import logging
from collections.abc import Callable

from celery import Celery
from sqlalchemy.exc import OperationalError

from services.worker.endings import Outcome
from services.worker.run_job import run_next
from services.worker.workplace import Workplace
from shared.task_queue import TRAIN_NEXT, ring
from shared.telemetry import log_event

log = logging.getLogger(__name__)


def register(app: Celery, workplace: Callable[[], Workplace]) -> None:
    """Give ``app`` its task; ``workplace`` is called in the forked child."""

    @app.task(name=TRAIN_NEXT)  # type: ignore[untyped-decorator]
    def train_next(queue: str) -> None:
        try:
            outcome = run_next(workplace(), queue)
        except OperationalError:
            log.warning(
                "database away; the scheduler will ring again", extra=log_event("database_away")
            )
            return
        if outcome is Outcome.GOES_ON:
            ring(app, queue)
