"""What the scheduler tells Prometheus: the state of the whole installation, read when it is asked.

It is the one process that reaches database, broker, store and inference, so the others need not
each ask them the same. A part that does not answer is told as down, and its figures are left out:
no figure is older than the scrape.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Engine, SQLColumnExpression, func, select
from sqlalchemy.orm import Session

from services.scheduler.erase import deleted_adapters, needless_files
from services.scheduler.settings import SchedulerSettings
from shared.adapters.models import Adapter
from shared.db import transaction
from shared.files.models import StoredFile
from shared.jobs.claim import claimable
from shared.jobs.models import FineTuningJob
from shared.jobs.state import TERMINAL, State
from shared.task_queue import live_workers
from shared.telemetry import log_event

if TYPE_CHECKING:
    from celery import Celery

QUEUE = "default"
"""Told of also while it has neither jobs nor workers: an absent figure would raise no alarm."""
READY_SECONDS = 2.0

log = logging.getLogger(__name__)


class Metrics:
    """The scheduler's own counter, in a registry that ``Installation`` may join."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leases_expired = Counter(
            "tailor_leases_expired",
            "Jobs taken from workers that stopped renewing.",
            registry=self.registry,
        )


class Installation(Collector):
    """Reads every part anew for each scrape."""

    def __init__(self, engine: Engine, app: "Celery", settings: SchedulerSettings) -> None:
        self._engine = engine
        self._app = app
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """Yield what can be read now, and which parts could be."""
        parts: dict[str, Callable[[], list[Metric]]] = {
            "database": self._database,
            "broker": self._broker,
            "store": self._store,
            "inference": self._inference,
        }
        up = GaugeMetricFamily(
            "tailor_part_up",
            "Whether the scheduler reaches a part.",
            labels=["part"],
        )
        for part, read in parts.items():
            try:
                yield from read()
            except Exception:
                log.warning(
                    "part not reached",
                    extra=log_event("part_unreachable", part=part),
                    exc_info=True,
                )
                up.add_metric([part], 0)
            else:
                up.add_metric([part], 1)
        yield up

    def _database(self) -> list[Metric]:
        with transaction(self._engine) as session:
            return [
                _unfinished(session),
                _ended(session),
                *_queues(session, self._settings.inference_base_model),
                *_erasures(session),
            ]

    def _broker(self) -> list[Metric]:
        workers = GaugeMetricFamily(
            "tailor_workers", "Workers connected to the broker, idle or busy.", labels=["queue"]
        )
        for queue, number in ({QUEUE: 0} | live_workers(self._app)).items():
            workers.add_metric([queue], number)
        return [workers]

    def _store(self) -> list[Metric]:
        disk = shutil.disk_usage(self._settings.store_dir)
        return [
            GaugeMetricFamily("tailor_store_free_bytes", "Free on the store's disk.", disk.free),
            GaugeMetricFamily("tailor_store_size_bytes", "Size of the store's disk.", disk.total),
        ]

    def _inference(self) -> list[Metric]:
        url = f"{self._settings.inference_url.rstrip('/')}/readyz"
        httpx.get(url, timeout=READY_SECONDS, trust_env=False).raise_for_status()
        return []


def _unfinished(session: Session) -> Metric:
    jobs = GaugeMetricFamily("tailor_jobs", "Unfinished jobs.", labels=["state"])
    rows = session.execute(
        select(FineTuningJob.state, func.count())
        .where(FineTuningJob.state.not_in(TERMINAL))
        .group_by(FineTuningJob.state)
    )
    known = {state.value: 0 for state in State if state not in TERMINAL}
    for state, number in (known | dict(rows.all())).items():
        jobs.add_metric([state], number)
    return jobs


def _ended(session: Session) -> Metric:
    jobs = CounterMetricFamily(
        "tailor_jobs_ended", "Jobs that have ended.", labels=["outcome", "cause"]
    )
    cause = func.coalesce(FineTuningJob.error["code"].astext, "")
    rows = session.execute(
        select(FineTuningJob.state, cause, func.count())
        .where(FineTuningJob.state.in_(TERMINAL))
        .group_by(FineTuningJob.state, cause)
    )
    known = {(state.value, ""): 0 for state in TERMINAL}
    for labels, number in (known | {(state, why): n for state, why, n in rows}).items():
        jobs.add_metric(labels, number)
    return jobs


def _queues(session: Session, base: str) -> list[Metric]:
    depth = GaugeMetricFamily(
        "tailor_queue_jobs", "Jobs that a worker could claim now.", labels=["queue"]
    )
    oldest = GaugeMetricFamily(
        "tailor_queue_oldest_seconds", "How long the oldest of them has waited.", labels=["queue"]
    )
    rows = session.execute(
        select(FineTuningJob.queue, func.count(), _age(FineTuningJob.state_changed_at))
        .where(claimable([base]))
        .group_by(FineTuningJob.queue)
    )
    for queue, (number, age) in ({QUEUE: (0, 0)} | {q: (n, a) for q, n, a in rows}).items():
        depth.add_metric([queue], number)
        oldest.add_metric([queue], age)
    return [depth, oldest]


def _erasures(session: Session) -> list[Metric]:
    backlog = GaugeMetricFamily(
        "tailor_erasure_backlog", "Deleted, and not erased yet.", labels=["kind"]
    )
    oldest = GaugeMetricFamily(
        "tailor_erasure_oldest_seconds", "How long ago the oldest was deleted.", labels=["kind"]
    )
    file_age = _age(func.least(StoredFile.deleted_at, StoredFile.expires_at))
    for kind, query in {
        "adapter": select(func.count(), _age(Adapter.deleted_at)).where(deleted_adapters()),
        "file": select(func.count(), file_age).where(needless_files()),
    }.items():
        number, age = session.execute(query).one()
        backlog.add_metric([kind], number)
        oldest.add_metric([kind], age)
    return [backlog, oldest]


def _age(since: SQLColumnExpression[Any]) -> ColumnElement[float]:
    """Seconds since the earliest ``since``; 0 where there is none."""
    return func.coalesce(func.extract("epoch", func.clock_timestamp() - func.min(since)), 0)
