"""The Celery application of the comparer: one task, and what its child works with."""

import logging
from functools import cache

from celery import Celery
from sqlalchemy.exc import OperationalError

import shared.db.tables  # noqa: F401  writing an event needs the tables its foreign keys name
from services.worker.comparing.run import Place, run_next
from services.worker.comparing.settings import ComparerSettings
from services.worker.drain import Drain
from services.worker.endings import Outcome
from services.worker.one_child import connect_signals, make_app
from shared.catalog import load_catalog
from shared.db import make_engine
from shared.replicas.directory import Directory
from shared.task_queue import COMPARE, TRAIN_NEXT, ring
from shared.telemetry import log_event

log = logging.getLogger(__name__)


def make_comparer_app(settings: ComparerSettings) -> Celery:
    """Build the application of one comparer."""
    app = make_app(settings.broker_url.get_secret_value(), COMPARE)
    drain = Drain()

    @cache
    def place() -> Place:
        # In the child: no connection may cross the fork.
        engine = make_engine(
            settings.system_database_url.get_secret_value(),
            answer_seconds=settings.database_answer_seconds,
        )
        replicas = Directory(engine, load_catalog(settings.models_dir))
        return Place(settings, engine, replicas, drain)

    # The doorbell's name, whatever the queue: a ring says no more than "look for work".
    @app.task(name=TRAIN_NEXT)  # type: ignore[untyped-decorator]
    def compare_next(_queue: str) -> None:
        try:
            outcome = run_next(place())
        except OperationalError:
            log.warning(
                "database away; the scheduler will ring again", extra=log_event("database_away")
            )
            return
        if outcome is Outcome.GOES_ON:
            ring(app, COMPARE)

    connect_signals("comparer", settings.log_level, drain, place)
    return app
