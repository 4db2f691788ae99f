"""``python -m services.scheduler``: sweeps until SIGTERM."""

import signal
import threading
import time

from sqlalchemy import Engine

import shared.db.tables  # noqa: F401  writing an event needs the tables its foreign keys name
from services.scheduler.erase import EraseAdapters, EraseAttempts, EraseFiles, Eviction
from services.scheduler.reap import LeaseWatch, Reap
from services.scheduler.rering import Rering
from services.scheduler.settings import SchedulerSettings
from services.scheduler.sweep import Duty, sweep_until
from services.scheduler.validate import Validate
from shared.db import make_engine
from shared.storage import LocalStore
from shared.task_queue import in_haste, make_celery
from shared.telemetry import configure_logging


def make_duties(settings: SchedulerSettings, engine: Engine) -> list[Duty]:
    """Return all duties, the urgent ones first."""
    app = in_haste(make_celery(settings.broker_url.get_secret_value()))
    store = LocalStore(settings.store_dir)
    watch = LeaseWatch(settings.lease_window_seconds, settings.scan_gap_seconds)
    evict = Eviction(settings.inference_url, settings.inference_secret.get_secret_value())
    orphan_seconds = settings.orphan_seconds
    return [
        Reap(engine, watch, time.monotonic),
        Validate(engine, app),
        Rering(engine, app, settings.rering_age_seconds),
        EraseAttempts(engine, store, settings.lease_window_seconds),
        EraseFiles(engine, store, orphan_seconds),
        EraseAdapters(engine, store, evict, orphan_seconds, settings.erase_batch),
    ]


def main(settings: SchedulerSettings) -> None:
    """Sweep until SIGTERM or SIGINT."""
    configure_logging("scheduler", settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine = make_engine(settings.system_database_url.get_secret_value())
    sweep_until(stop, make_duties(settings, engine), settings.scheduler_interval_seconds)


if __name__ == "__main__":
    main(SchedulerSettings())
