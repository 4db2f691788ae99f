"""The scheduler's two loops, with real duties and clocks that run fast."""

import socket
import threading
from contextlib import contextmanager

from pydantic import SecretStr

from services.inference.settings import InferenceSettings
from services.scheduler.__main__ import work
from services.scheduler.erase import EVICTION_SECONDS
from services.scheduler.settings import SchedulerSettings
from shared.db import transaction
from shared.db.tables import Adapter
from shared.jobs.state import State
from tests.replicas import add_replica
from tests.services.scheduler.test_duties import LONG_AGO, add_adapter
from tests.services.worker.inference_server import SECRET


@contextmanager
def scheduler(workshop):
    settings = SchedulerSettings(
        system_database_url=SecretStr(workshop.database_url),
        broker_url=SecretStr(workshop.broker_url),
        inference_secret=SecretStr(SECRET),
        store_dir=workshop.store.root,
        models_dir=workshop.folder / "models",
        lease_window_seconds=2,
        scan_gap_seconds=1,
        scheduler_interval_seconds=0.1,
    )
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop, settings, workshop.engine))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def test_an_eviction_that_hangs_does_not_keep_a_lost_lease_from_being_seen(workshop):
    adapter_id = add_adapter(workshop, deleted_at=LONG_AGO)
    job_id = workshop.add_job(state=State.RUNNING, attempt=1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        add_replica(workshop.engine, url)
        with scheduler(workshop):
            workshop.wait_for_state(job_id, State.QUEUED, seconds=12)
    with transaction(workshop.engine) as session:
        assert session.get_one(Adapter, adapter_id).erased_at is None


def test_an_eviction_is_given_longer_than_inference_lets_answers_run_on_and_be_aborted():
    drain = InferenceSettings.model_fields["inference_drain_seconds"].default
    assert 2 * drain < EVICTION_SECONDS
