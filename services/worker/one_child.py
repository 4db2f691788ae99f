"""A Celery worker of one queue and one child, with our logs; its child outlives nobody."""

import os
import warnings
from collections.abc import Callable

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from services.worker.drain import Drain
from services.worker.watchdog import watch
from shared.parent_death import die_with
from shared.task_queue import make_celery, name_worker
from shared.telemetry import configure_logging


def make_app(broker_url: str, queue: str) -> Celery:
    """Build the application of one worker, without its task."""
    app = make_celery(broker_url)
    name_worker(app, queue)
    app.conf.worker_redirect_stdouts = False
    # On a machine that trains and serves, four seconds are no sign of a dead child.
    app.conf.worker_proc_alive_timeout = 60
    return app


def connect_signals(
    service: str, log_level: str, drain: Drain, settle: Callable[[], object]
) -> None:
    """Log as ``service``; pass SIGTERM on to the child; run ``settle`` in the child, forked."""
    main_process = os.getpid()

    def set_up_logging(**_: object) -> None:
        configure_logging(service, log_level)

    def drain_children(**_: object) -> None:
        drain.request()

    def settle_child(**_: object) -> None:
        die_with(main_process)
        settle()

    # A receiver of setup_logging keeps Celery from configuring logs itself.
    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.worker_shutting_down.connect(drain_children, weak=False)
    signals.worker_process_init.connect(settle_child, weak=False)


def work(app: Celery, queue: str, *, log_level: str, watchdog_seconds: float) -> int:
    """Work until SIGTERM; return the exit status."""
    # Celery fears pickled messages under root; we accept JSON alone.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = app.Worker(
        pool_cls="prefork",
        concurrency=1,
        queues=[queue],
        loglevel=log_level,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    watch(app, queue, watchdog_seconds)
    worker.start()
    return int(worker.exitcode or 0)
