"""``python -m services.scheduler``: sweeps until SIGTERM.

Erasing has a loop of its own: it waits for the inference service and for the disk, and a scan for
lost leases that comes late starts every window anew. So has the validation of new jobs.
"""

import signal
import threading
import time
from collections.abc import Callable, Collection

from sqlalchemy import Engine

import shared.db.tables  # noqa: F401  writing an event needs the tables its foreign keys name
from services.scheduler import reap, unserved
from services.scheduler.comparisons import Follow, RingForComparisons
from services.scheduler.erase import EraseAdapters, EraseAttempts, EraseFiles, Eviction
from services.scheduler.metrics import Installation, Metrics
from services.scheduler.reap import Leased, LeaseWatch, Reap
from services.scheduler.replicas import ReapReplicas
from services.scheduler.rering import Rering
from services.scheduler.settings import SchedulerSettings
from services.scheduler.sweep import Duty, sweep_until
from services.scheduler.unserved import Unserved
from services.scheduler.validate import Validation
from shared.catalog import load_catalog
from shared.db import make_engine
from shared.jobs.lease import HeldLease
from shared.metrics import serve_metrics
from shared.replicas.directory import Directory
from shared.storage import LocalStore
from shared.task_queue import make_celery, with_short_timeouts
from shared.telemetry import configure_logging

STOP_SECONDS = 5.0


def urgent_duties(
    settings: SchedulerSettings,
    engine: Engine,
    metrics: Metrics,
    bases: Callable[[], Collection[str]],
) -> list[Duty]:
    """Return the duties that jobs wait for; ``bases`` says which base models are served."""
    app = with_short_timeouts(make_celery(settings.broker_url.get_secret_value()))
    window, gap = settings.lease_window_seconds, settings.scan_gap_seconds

    def reaping(kind: Leased) -> Reap:
        watch = LeaseWatch[HeldLease](window, gap)
        return Reap(engine, watch, time.monotonic, metrics.leases_expired, kind)

    return [
        reaping(reap.JOBS),
        ReapReplicas(engine, LeaseWatch(window, gap), time.monotonic),
        Rering(engine, app, settings.rering_age_seconds, bases),
        Unserved(engine, bases, window),
        reaping(reap.COMPARISONS),
        Follow(engine),
        RingForComparisons(engine, app, settings.rering_age_seconds, bases),
        Unserved(engine, bases, window, unserved.COMPARISONS),
    ]


def erasing_duties(settings: SchedulerSettings, engine: Engine) -> list[Duty]:
    """Return the duties that nobody waits for and that may take their time."""
    store = LocalStore(settings.store_dir)
    evict = Eviction(engine, settings.inference_secret.get_secret_value())
    orphan_seconds, batch = settings.orphan_seconds, settings.erase_batch
    return [
        EraseAttempts(engine, store, settings.lease_window_seconds, orphan_seconds, batch),
        EraseFiles(engine, store, orphan_seconds, batch),
        EraseAdapters(engine, store, evict, orphan_seconds, batch),
    ]


def work(stop: threading.Event, settings: SchedulerSettings, engine: Engine) -> None:
    """Sweep until ``stop`` is set."""
    interval = settings.scheduler_interval_seconds
    erasing = erasing_duties(settings, engine)
    # A daemon: whatever it is doing when the process ends is begun again by the next one.
    threading.Thread(
        target=sweep_until, args=(stop, erasing, interval), name="erase", daemon=True
    ).start()
    app = with_short_timeouts(make_celery(settings.broker_url.get_secret_value()))
    catalog = load_catalog(settings.models_dir)
    replicas = Directory(engine, catalog)
    checks = Validation(engine, app, catalog, settings).start(stop)
    metrics = Metrics()
    metrics.registry.register(Installation(engine, app, settings, replicas))
    serve_metrics(metrics.registry, settings)
    sweep_until(stop, urgent_duties(settings, engine, metrics, replicas.bases), interval)
    for check in checks:
        check.join(STOP_SECONDS)


def main(settings: SchedulerSettings) -> None:
    """Sweep until SIGTERM or SIGINT."""
    configure_logging("scheduler", settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine = make_engine(
        settings.system_database_url.get_secret_value(),
        answer_seconds=settings.database_answer_seconds,
    )
    work(stop, settings, engine)


if __name__ == "__main__":
    main(SchedulerSettings())
