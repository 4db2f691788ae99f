"""Ends a worker that is alive but deaf: idle for long, rings waiting, Redis reachable.

Some kombu releases leave a worker so after a Redis restart. The process supervisor starts it again.
"""

import logging
import os
import threading
import time

from celery import Celery
from celery.worker import state as celery_state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared.task_queue import outstanding
from shared.telemetry import log_event

LOOKS_PER_WINDOW = 6
EXIT_CODE = 70

log = logging.getLogger(__name__)


class Deafness:
    """Decides from what was observed; one look at a time, the clock passed in."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._heard = -1

    def found(self, now: float, *, idle: bool, heard: int, waiting: int | None) -> bool:
        """Say whether the worker has been deaf for the whole window.

        ``heard`` counts the rings it ever took, ``waiting`` those in Redis (None: not reachable).
        """
        if not idle or not waiting or heard != self._heard:
            self._heard = heard
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._seconds


def watch(app: Celery, queue: str, seconds: float) -> None:
    """Start looking, in a thread of the worker's main process."""
    threading.Thread(target=_look, args=(app, queue, seconds), name="watchdog", daemon=True).start()


def _look(app: Celery, queue: str, seconds: float) -> None:
    deafness = Deafness(seconds)
    while True:
        time.sleep(seconds / LOOKS_PER_WINDOW)
        if deafness.found(
            time.monotonic(),
            idle=not celery_state.reserved_requests,
            heard=celery_state.all_total_count[0],
            waiting=_waiting(app, queue),
        ):
            log.error(
                "rings are waiting and this idle worker does not hear them; exiting",
                extra=log_event("worker_deaf"),
            )
            os._exit(EXIT_CODE)


def _waiting(app: Celery, queue: str) -> int | None:
    try:
        return outstanding(app, queue).waiting
    except (RedisError, OperationalError, OSError):
        return None
