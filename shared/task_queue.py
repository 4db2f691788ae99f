"""The doorbell: a Celery message that says "train next" and names no job.

Losing, doubling or reordering messages is harmless: whoever hears one asks PostgreSQL what to do.
Celery is imported where it is used: the API answers before its doorbell's thread has loaded it.
"""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue
from typing import TYPE_CHECKING, NamedTuple

from shared.telemetry import log_event

if TYPE_CHECKING:
    from celery import Celery

TRAIN_NEXT = "tailor.train_next"
"""The one task, whatever the queue: a ring says no more than "look for work"."""
COMPARE = "compare"
"""The queue of comparisons, heard by comparers alone."""
WORKER = "tailor-worker:"
"""How the name of a worker's connection begins; queue, host and process follow."""
RING_TIMEOUT_SECONDS = 1.0
MAX_WAITING_RINGS = 100
SHORT_TIMEOUTS = {
    "socket_connect_timeout": RING_TIMEOUT_SECONDS,
    "socket_timeout": RING_TIMEOUT_SECONDS,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
}
"""Broker options for callers that must not block; without them kombu retries an unreachable broker
for about 6 s, even with ``retry=False``."""

log = logging.getLogger(__name__)


def make_celery(broker_url: str) -> "Celery":
    """Build the Celery application; the reason for each setting is in docs/job-lifecycle.md."""
    from celery import Celery  # noqa: PLC0415  a quarter of a second; see the module's docstring

    app = Celery("tailor", broker=broker_url, fixups=[], set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 8 * 24 * 3600,
            "socket_connect_timeout": RING_TIMEOUT_SECONDS,
        },
        task_default_queue="default",
    )
    return app


def with_short_timeouts(app: "Celery") -> "Celery":
    """Let ``app`` give up on an absent broker within a second or two; not for a worker's own."""
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **SHORT_TIMEOUTS}
    return app


def ring(app: "Celery", queue: str = "default") -> bool:
    """Send one doorbell; False, never an exception, when the broker cannot be reached."""
    from kombu.exceptions import OperationalError  # noqa: PLC0415  comes with Celery

    try:
        app.send_task(TRAIN_NEXT, args=[queue], queue=queue, retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning(
            "doorbell not rung", extra=log_event("doorbell_not_rung", reason=type(error).__name__)
        )
        return False
    return True


class Doorbell:
    """Rings from one thread of its own: nobody waits for the broker, and rings cannot pile up.

    A ring that finds ``MAX_WAITING_RINGS`` others waiting is dropped; the scheduler rings again.
    """

    def __init__(self, make_app: "Callable[[], Celery]") -> None:
        self._make_app = make_app
        self._waiting: Queue[str | None] = Queue(MAX_WAITING_RINGS)
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)

    def start(self) -> None:
        """Begin to ring; the first ring opens the connection before anybody needs it."""
        self._thread.start()
        self.ring()

    def ring(self, queue: str = "default") -> None:
        """Ring soon; returns at once and never fails."""
        with suppress(Full):
            self._waiting.put_nowait(queue)

    def stop(self) -> None:
        """End the thread, after the rings that are waiting or two time-outs."""
        with suppress(Full):
            self._waiting.put_nowait(None)
        self._thread.join(2 * RING_TIMEOUT_SECONDS)

    def _run(self) -> None:
        # A broker that accepts but does not answer must not hold the thread either.
        app = with_short_timeouts(self._make_app())
        while queue := self._waiting.get():
            ring(app, queue)
        app.close()


def name_worker(app: "Celery", queue: str) -> None:
    """Let the broker know each connection of ``app`` as this worker's of ``queue``."""
    name = f"{WORKER}{queue}:{socket.gethostname()}:{os.getpid()}"
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "client_name": name}


def live_workers(app: "Celery") -> Counter[str]:
    """Count, by queue, the workers that are connected, idle or busy.

    Raises redis or kombu errors when the broker is away.
    """
    with app.connection_for_read(transport_options=SHORT_TIMEOUTS) as connection:
        names = {client["name"] for client in connection.channel().client.client_list()}
    # A worker has several connections, all of one name.
    return Counter(name.split(":")[1] for name in names if name.startswith(WORKER))


class Outstanding(NamedTuple):
    """Doorbells that may still lead to a claim."""

    waiting: int
    """In the queue: nobody has taken them yet."""
    in_hand: int
    """Given to a worker a moment ago and not acknowledged (of all queues)."""


def outstanding(app: "Celery", queue: str, moment_seconds: float = 10) -> Outstanding:
    """Count a queue's doorbells; raises redis or kombu errors when the broker is away.

    A ring unacknowledged for longer than a moment leads to no claim: its worker is training, or was
    killed and left it behind until the visibility time-out, eight days later.
    """
    with app.connection_for_read(transport_options=SHORT_TIMEOUTS) as connection:
        channel = connection.channel()
        now = time.time()
        in_hand = channel.client.zcount(
            channel.unacked_index_key, now - moment_seconds, now + moment_seconds
        )
        return Outstanding(int(channel.client.llen(queue)), int(in_hand))
