"""The Celery application of the worker: one task, our logs, a child that dies with its parent."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from celery import Celery, signals

import shared.db.tables  # noqa: F401  writing an event needs the tables its foreign keys name
from services.worker.drain import Drain
from services.worker.settings import WorkerSettings
from services.worker.tasks import register
from services.worker.trainer import Trainer
from services.worker.workplace import Workplace
from shared.catalog import load_catalog
from shared.db import make_engine
from shared.metrics import serve_metrics
from shared.parent_death import die_with
from shared.task_queue import make_celery, name_worker
from shared.telemetry import configure_logging


def make_worker_app(
    settings: WorkerSettings, trainer_command: Sequence[str], environment: Mapping[str, str]
) -> Celery:
    """Build the application of one worker; ``environment`` is what the trainer process gets."""
    app = make_celery(settings.broker_url.get_secret_value())
    name_worker(app, settings.worker_queue)
    app.conf.worker_redirect_stdouts = False
    # On a machine that trains and serves, four seconds are no sign of a dead child.
    app.conf.worker_proc_alive_timeout = 60
    drain = Drain()

    @cache
    def workplace() -> Workplace:
        return Workplace(
            settings=settings,
            engine=make_engine(
                settings.system_database_url.get_secret_value(),
                answer_seconds=settings.database_answer_seconds,
            ),
            catalog=load_catalog(),
            trainer=Trainer(trainer_command, environment, settings.trainer_jobs),
            drain=drain,
        )

    register(app, workplace)
    _connect_signals(settings, drain, workplace)
    return app


def _connect_signals(
    settings: WorkerSettings, drain: Drain, workplace: Callable[[], Workplace]
) -> None:
    main_process = os.getpid()

    def set_up_logging(**_: object) -> None:
        configure_logging("worker", settings.log_level)

    def drain_children(**_: object) -> None:
        drain.request()

    def settle_child(**_: object) -> None:
        die_with(main_process)
        # In the child: no connection may cross the fork. Now: the first ring shall be quick.
        place = workplace()
        serve_metrics(place.metrics.registry, settings)

    # A receiver of setup_logging keeps Celery from configuring logs itself.
    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.worker_shutting_down.connect(drain_children, weak=False)
    signals.worker_process_init.connect(settle_child, weak=False)
