"""The scheduler's metrics of real parts, and the alerts that fire on their text."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import SecretStr

from services.scheduler.metrics import Installation
from services.scheduler.settings import SchedulerSettings
from shared.catalog import load_catalog
from shared.clock import now
from shared.comparisons.state import State as ComparisonState
from shared.jobs.state import State
from shared.replicas.directory import Directory
from shared.task_queue import COMPARE, make_celery, name_worker
from tests.promql import RULES, firing, samples, selected, selectors
from tests.replicas import add_replica, remove_replica
from tests.services.scheduler.test_duties import add_adapter, erase_adapters
from tests.services.worker.inference_server import SECRET

LONG_AGO = now() - timedelta(hours=2)


def scraped(workshop, **overrides) -> str:
    """Return what the scheduler answers Prometheus."""
    workshop.store.root.mkdir(exist_ok=True)
    settings = SchedulerSettings(
        **{
            "system_database_url": SecretStr(workshop.database_url),
            "broker_url": SecretStr(workshop.broker_url),
            "inference_secret": SecretStr(SECRET),
            "store_dir": workshop.store.root,
            "models_dir": workshop.folder / "models",
        }
        | overrides
    )
    registry = CollectorRegistry()
    replicas = Directory(workshop.engine, load_catalog())
    registry.register(Installation(workshop.engine, workshop.app, settings, replicas))
    return generate_latest(registry).decode()


def value(text, query):
    (selector,) = selectors(query)
    (sample,) = selected(selector, samples(text))
    return sample.value


@contextmanager
def listening_worker(workshop, queue="default") -> Iterator[None]:
    """Be connected as a worker is."""
    app = make_celery(workshop.broker_url)
    name_worker(app, queue)
    with app.connection_for_read() as connection:
        connection.connect()
        connection.default_channel.client.ping()
        yield
    app.close()


@pytest.fixture
def worker(workshop):
    with listening_worker(workshop):
        yield


def test_no_alert_fires_while_all_is_well(workshop, worker):
    workshop.add_job()
    workshop.add_job(state=State.RUNNING, attempt=1)
    add_adapter(workshop)
    assert firing(samples(scraped(workshop))) == set()


def test_an_alert_fires_while_no_worker_listens(workshop):
    assert firing(samples(scraped(workshop))) == {"NoWorker"}


def test_an_alert_fires_when_a_job_has_waited_too_long(workshop, worker):
    workshop.add_job(state_changed_at=LONG_AGO)
    assert firing(samples(scraped(workshop))) == {"OldestJobTooOld"}


def test_an_alert_fires_while_comparisons_are_queued_and_no_comparer_listens(
    workshop, worker, comparisons
):
    comparisons.add(ComparisonState.WAITING)
    comparisons.add(not_before=now() + timedelta(minutes=5))
    assert firing(samples(scraped(workshop))) == set()
    comparisons.add()
    text = scraped(workshop)
    assert firing(samples(text)) == {"NoComparer"}
    assert value(text, 'tailor_queue_length{queue="compare"}') == 1
    with listening_worker(workshop, COMPARE):
        assert firing(samples(scraped(workshop))) == set()


def test_an_alert_fires_when_a_comparison_has_waited_too_long(workshop, worker, comparisons):
    comparisons.add(state_changed_at=LONG_AGO)
    with listening_worker(workshop, COMPARE):
        assert firing(samples(scraped(workshop))) == {"OldestComparisonTooOld"}


def test_a_job_that_waits_for_no_worker_is_not_in_the_queue(workshop, worker):
    workshop.add_job(state_changed_at=LONG_AGO, not_before=now() + timedelta(minutes=5))
    workshop.add_job(state_changed_at=LONG_AGO, base_model="another")
    workshop.add_job(state_changed_at=LONG_AGO, state=State.RUNNING, attempt=1)
    text = scraped(workshop)
    assert value(text, 'tailor_queue_length{queue="default"}') == 0
    assert firing(samples(text)) == set()


def test_an_alert_fires_while_inference_is_away_or_not_ready(workshop, worker):
    nobody = add_replica(workshop.engine, "http://127.0.0.1:9")
    assert firing(samples(scraped(workshop))) == {"InferenceAway"}
    remove_replica(workshop.engine, nobody)
    assert firing(samples(scraped(workshop))) == set()
    workshop.inference.ready = False
    assert firing(samples(scraped(workshop))) == {"InferenceAway"}


def test_an_alert_fires_while_the_disk_has_little_room(workshop, worker):
    # A file system that has none, on every Linux.
    assert firing(samples(scraped(workshop, store_dir=Path("/proc")))) == {"DiskLow"}


def test_an_alert_fires_when_a_deleted_adapter_cannot_be_erased(workshop, worker):
    add_adapter(workshop, deleted_at=LONG_AGO)
    workshop.inference.status = 503
    erase_adapters(workshop).run()
    text = scraped(workshop)
    assert firing(samples(text)) == {"ErasureStuck"}
    assert value(text, 'tailor_erasure_backlog{kind="adapter"}') == 1
    workshop.inference.status = 200
    erase_adapters(workshop).run()
    assert firing(samples(scraped(workshop))) == set()


def test_a_part_that_is_away_leaves_the_figures_of_the_others(workshop, broker, worker):
    workshop.add_job(state_changed_at=LONG_AGO)
    broker.process.kill()
    broker.process.wait()
    text = scraped(workshop)
    assert firing(samples(text)) == {"PartAway", "OldestJobTooOld"}
    assert "tailor_workers{" not in text


def test_jobs_are_counted_by_state_outcome_and_cause_and_name_no_tenant(workshop):
    tenant = workshop.add_tenant()
    workshop.add_job(tenant=tenant, state=State.RUNNING, attempt=1)
    for cause in ("poisoned", "poisoned", "bad_data"):
        workshop.add_job(tenant=tenant, state=State.FAILED, error={"code": cause})
    workshop.add_job(tenant=tenant, state=State.SUCCEEDED)
    text = scraped(workshop)
    assert value(text, 'tailor_jobs{state="running"}') == 1
    assert value(text, 'tailor_jobs_ended_total{cause="poisoned"}') == 2
    assert value(text, 'tailor_jobs_ended_total{outcome="succeeded"}') == 1
    assert tenant not in text


def test_comparisons_are_counted_by_state_outcome_and_cause_and_name_no_tenant(
    workshop, comparisons
):
    for state in (ComparisonState.WAITING, ComparisonState.QUEUED, ComparisonState.RUNNING):
        comparisons.add(state)
    comparisons.add(ComparisonState.FAILED, error={"code": "poisoned"})
    # A count that has been told is never less later.
    comparisons.add(ComparisonState.FAILED, error={"code": "poisoned"}, deleted_at=now())
    text = scraped(workshop)
    for name in ("waiting", "queued", "running"):
        assert value(text, f'tailor_comparisons{{state="{name}"}}') == 1
    assert value(text, 'tailor_comparisons_ended_total{cause="poisoned"}') == 2
    assert value(text, 'tailor_comparisons_ended_total{outcome="cancelled"}') == 0
    assert comparisons.tenant_id not in text


def test_workers_are_counted_once_each_and_by_queue(workshop):
    default, again, large = (listening_worker(workshop, q) for q in ("default", "default", "large"))
    with default, again, large:  # the first two are one process: a worker with two connections
        text = scraped(workshop)
    assert value(text, 'tailor_workers{queue="default"}') == 1
    assert value(text, 'tailor_workers{queue="large"}') == 1


def test_every_alert_is_one_that_fires_in_a_test_or_is_prometheus_own():
    fired = {"NoWorker", "OldestJobTooOld", "InferenceAway", "DiskLow", "ErasureStuck", "PartAway"}
    fired |= {"NoComparer", "OldestComparisonTooOld"}
    assert set(RULES) - fired == {"TargetDown"}
