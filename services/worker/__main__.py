"""``python -m services.worker``: one Celery worker with one child and one warm trainer."""

import os
import sys
import warnings
from collections.abc import Mapping, Sequence

from celery.exceptions import SecurityWarning

from services.worker.celery_app import make_worker_app
from services.worker.settings import WorkerSettings
from services.worker.watchdog import watch

TRAINER = (sys.executable, "-m", "services.worker.training")


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without our settings: the trainer gets no credentials."""
    return {name: value for name, value in environment.items() if not name.startswith("TAILOR_")}


def main(settings: WorkerSettings, trainer_command: Sequence[str] = TRAINER) -> int:
    """Work until SIGTERM; return the exit status."""
    # Celery fears pickled messages under root; we accept JSON alone.
    warnings.simplefilter("ignore", SecurityWarning)
    app = make_worker_app(settings, trainer_command, trainer_environment(os.environ))
    worker = app.Worker(
        pool_cls="prefork",
        concurrency=1,
        queues=[settings.worker_queue],
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    watch(app, settings.worker_queue, settings.watchdog_seconds)
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(WorkerSettings()))
