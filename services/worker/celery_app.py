"""The Celery application of the worker: one task, and what its child works with."""

from collections.abc import Mapping, Sequence
from functools import cache

from celery import Celery

import shared.db.tables  # noqa: F401  writing an event needs the tables its foreign keys name
from services.worker.drain import Drain
from services.worker.one_child import connect_signals, make_app
from services.worker.settings import WorkerSettings
from services.worker.tasks import register
from services.worker.trainer import Trainer
from services.worker.workplace import Workplace
from shared.catalog import load_catalog
from shared.db import make_engine
from shared.metrics import serve_metrics
from shared.replicas.directory import Directory


def make_worker_app(
    settings: WorkerSettings, trainer_command: Sequence[str], environment: Mapping[str, str]
) -> Celery:
    """Build the application of one worker; ``environment`` is what the trainer process gets."""
    app = make_app(settings.broker_url.get_secret_value(), settings.worker_queue)
    drain = Drain()

    @cache
    def workplace() -> Workplace:
        engine = make_engine(
            settings.system_database_url.get_secret_value(),
            answer_seconds=settings.database_answer_seconds,
        )
        catalog = load_catalog(settings.models_dir)
        return Workplace(
            settings=settings,
            engine=engine,
            catalog=catalog,
            replicas=Directory(engine, catalog),
            trainer=Trainer(trainer_command, environment, settings.trainer_jobs),
            drain=drain,
        )

    def settle() -> None:
        # In the child: no connection may cross the fork. Now: the first ring shall be quick.
        serve_metrics(workplace().metrics.registry, settings)

    register(app, workplace)
    connect_signals("worker", settings.log_level, drain, settle)
    return app
