"""What the scheduler tells Prometheus: the state of the whole installation, read when it is asked.

It is the one process that reaches database, broker, store and inference, so the others need not
each ask them the same. A part that does not answer is told as down, and its figures are left out:
no figure is older than the scrape.
"""

import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Engine, SQLColumnExpression, func, literal, select
from sqlalchemy.orm import Session

from services.scheduler.erase import deleted_adapters, needless_files
from services.scheduler.settings import SchedulerSettings
from shared.adapters.models import Adapter
from shared.comparisons import state as comparison_state
from shared.comparisons.claim import claimable as claimable_comparisons
from shared.comparisons.models import Comparison
from shared.db import transaction
from shared.files.models import StoredFile
from shared.jobs import state as job_state
from shared.jobs.claim import claimable as claimable_jobs
from shared.jobs.models import FineTuningJob
from shared.replicas.directory import Directory
from shared.replicas.registry import urls
from shared.task_queue import COMPARE, live_workers
from shared.telemetry import log_event

if TYPE_CHECKING:
    from celery import Celery

QUEUES = ("default", COMPARE)
"""Told of also while they have neither work nor workers: an absent figure would raise no alarm."""
READY_SECONDS = 2.0

log = logging.getLogger(__name__)


class Work(NamedTuple):
    """What is counted by its state."""

    name: str
    table: type[FineTuningJob | Comparison]
    states: type[StrEnum]
    terminal: Collection[str]


WORK = (
    Work("jobs", FineTuningJob, job_state.State, job_state.TERMINAL),
    Work("comparisons", Comparison, comparison_state.State, comparison_state.TERMINAL),
)


class Metrics:
    """The scheduler's own counter, in a registry that ``Installation`` may join."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leases_expired = Counter(
            "tailor_leases_expired",
            "Jobs and comparisons taken from workers that stopped renewing.",
            registry=self.registry,
        )


class Installation(Collector):
    """Reads every part anew for each scrape."""

    def __init__(
        self, engine: Engine, app: "Celery", settings: SchedulerSettings, replicas: Directory
    ) -> None:
        self._engine = engine
        self._app = app
        self._settings = settings
        self._replicas = replicas

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
                *(_unfinished(session, work) for work in WORK),
                *(_ended(session, work) for work in WORK),
                *_queues(session, self._replicas.bases()),
                *_erasures(session),
                self._served(),
            ]

    def _served(self) -> Metric:
        """Count the inference processes that serve what the catalog describes."""
        replicas = GaugeMetricFamily(
            "tailor_replicas",
            "Inference processes; one that starts, or was not heard of lately, is silent.",
            labels=["base_model", "state"],
        )
        for base, served in self._replicas.served().items():
            replicas.add_metric([base, "answering"], len(served.answering))
            replicas.add_metric([base, "silent"], len(served.silent))
        return replicas

    def _broker(self) -> list[Metric]:
        workers = GaugeMetricFamily(
            "tailor_workers", "Workers connected to the broker, idle or busy.", labels=["queue"]
        )
        for queue, number in (dict.fromkeys(QUEUES, 0) | live_workers(self._app)).items():
            workers.add_metric([queue], number)
        return [workers]

    def _store(self) -> list[Metric]:
        disk = shutil.disk_usage(self._settings.store_dir)
        return [
            GaugeMetricFamily("tailor_store_free_bytes", "Free on the store's disk.", disk.free),
            GaugeMetricFamily("tailor_store_size_bytes", "Size of the store's disk.", disk.total),
        ]

    def _inference(self) -> list[Metric]:
        """Every registered process must answer, and one must be registered."""
        with transaction(self._engine) as session:
            addresses = urls(session)
        if not addresses:
            raise LookupError("no inference process is registered")
        for address in addresses:
            url = f"{address}/readyz"
            httpx.get(url, timeout=READY_SECONDS, trust_env=False).raise_for_status()
        return []


def _unfinished(session: Session, work: Work) -> Metric:
    table, name = work.table, work.name
    numbers = GaugeMetricFamily(f"tailor_{name}", f"Unfinished {name}.", labels=["state"])
    rows = session.execute(
        select(table.state, func.count())
        .where(table.state.not_in(work.terminal))
        .group_by(table.state)
    )
    known = {state.value: 0 for state in work.states if state not in work.terminal}
    for state, number in (known | dict(rows.all())).items():
        numbers.add_metric([state], number)
    return numbers


def _ended(session: Session, work: Work) -> Metric:
    table, name = work.table, work.name
    numbers = CounterMetricFamily(
        f"tailor_{name}_ended", f"{name.capitalize()} that have ended.", labels=["outcome", "cause"]
    )
    cause = func.coalesce(table.error["code"].astext, "")
    rows = session.execute(
        select(table.state, cause, func.count())
        .where(table.state.in_(work.terminal))
        .group_by(table.state, cause)
    )
    known = {(str(state), ""): 0 for state in work.terminal}
    for labels, number in (known | {(state, why): n for state, why, n in rows}).items():
        numbers.add_metric(labels, number)
    return numbers


def _queues(session: Session, bases: Collection[str]) -> list[Metric]:
    length = GaugeMetricFamily(
        "tailor_queue_length",
        "Jobs that a worker could claim now; comparisons that a comparer could.",
        labels=["queue"],
    )
    oldest = GaugeMetricFamily(
        "tailor_queue_oldest_seconds", "How long the oldest of them has waited.", labels=["queue"]
    )
    jobs = session.execute(
        select(FineTuningJob.queue, func.count(), _age(FineTuningJob.state_changed_at))
        .where(claimable_jobs(bases))
        .group_by(FineTuningJob.queue)
    )
    comparisons = session.execute(
        select(literal(COMPARE), func.count(), _age(Comparison.state_changed_at)).where(
            claimable_comparisons(bases)
        )
    )
    found = {queue: (number, age) for queue, number, age in [*jobs, *comparisons]}
    for queue, (number, age) in (dict.fromkeys(QUEUES, (0, 0)) | found).items():
        length.add_metric([queue], number)
        oldest.add_metric([queue], age)
    return [length, oldest]


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
