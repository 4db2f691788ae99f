"""``python -m services.worker``: one Celery worker with one child and one warm trainer."""

import os
import sys
from collections.abc import Mapping, Sequence

from services.worker.celery_app import make_worker_app
from services.worker.one_child import work
from services.worker.settings import WorkerSettings

TRAINER = (sys.executable, "-m", "services.worker.training")


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without our settings: the trainer gets no credentials."""
    return {name: value for name, value in environment.items() if not name.startswith("TAILOR_")}


def main(settings: WorkerSettings, trainer_command: Sequence[str] = TRAINER) -> int:
    """Work until SIGTERM; return the exit status."""
    command = [*trainer_command, "--models-dir", str(settings.models_dir)]
    if settings.trainer_processes > 1:
        command += ["--processes", str(settings.trainer_processes)]
    app = make_worker_app(settings, command, trainer_environment(os.environ))
    return work(
        app,
        settings.worker_queue,
        log_level=settings.log_level,
        watchdog_seconds=settings.watchdog_seconds,
    )


if __name__ == "__main__":
    sys.exit(main(WorkerSettings()))
