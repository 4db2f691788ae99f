"""``python -m services.worker.comparing``: one Celery worker of the queue ``compare``; no torch."""

import sys

from services.worker.comparing.celery_app import make_comparer_app
from services.worker.comparing.settings import ComparerSettings
from services.worker.one_child import work
from shared.task_queue import COMPARE


def main(settings: ComparerSettings) -> int:
    """Work until SIGTERM; return the exit status."""
    return work(
        make_comparer_app(settings),
        COMPARE,
        log_level=settings.log_level,
        watchdog_seconds=settings.watchdog_seconds,
    )


if __name__ == "__main__":
    sys.exit(main(ComparerSettings()))
