"""What the job protocol promises when parts die: real processes, every clock five times faster.

One test has the clocks as they are shipped.

Only the trainer is scripted; it says what happened to it, and PostgreSQL's events are the oracle.
"""

import signal
import time
from pathlib import Path

import psutil
import pytest

from shared.jobs.state import State
from shared.task_queue import outstanding
from tests.conftest import wait_until
from tests.services.worker.workshop import (
    assert_ended_once,
    descendants,
    kill_tree,
    rung_job,
    start_valkey,
    trainer_of,
)

pytestmark = pytest.mark.fault
SLOW = {"steps": 60, "step_seconds": 0.05}


def test_a_killed_worker_takes_its_processes_along_and_its_job_is_done_by_another(workshop):
    workshop.start_scheduler()
    worker = workshop.start_worker()
    job_id = workshop.add_job(script=SLOW)
    workshop.ring()
    workshop.wait_for_step(job_id, 12)
    family = descendants(worker.pid)
    assert len(family) == 2  # the Celery child and the trainer
    worker.kill()
    wait_until(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family),
        "the worker's processes are gone",
        (psutil.NoSuchProcess,),
        seconds=5,
    )
    workshop.start_worker()
    job = assert_ended_once(workshop, job_id)
    assert job.attempt == 2
    assert job.metrics["steps_this_attempt"] <= 50


def test_with_the_clocks_as_shipped_a_killed_workers_job_is_done_by_another(workshop):
    workshop.faster = 1
    workshop.start_scheduler()
    worker = workshop.start_worker()
    job_id = workshop.add_job(script=SLOW)
    workshop.ring()
    saved = workshop.store.attempt(job_id, 1) / "step-000000010"
    wait_until(saved.exists, "a checkpoint")
    kill_tree(worker.pid)
    killed = time.monotonic()
    workshop.start_worker()
    wait_until(lambda: workshop.job(job_id).attempt == 2, "it is taken over", seconds=90)
    assert time.monotonic() - killed > 25  # the window began with its last heartbeat
    assert assert_ended_once(workshop, job_id).metrics["steps_this_attempt"] <= 50


def test_a_killed_celery_child_takes_the_trainer_along_and_the_worker_carries_on(workshop):
    workshop.start_scheduler()
    worker = workshop.start_worker()
    job_id = workshop.add_job(script=SLOW)
    workshop.ring()
    workshop.wait_for_step(job_id, 12)
    trainer = trainer_of(worker)
    psutil.Process(trainer.ppid()).kill()
    wait_until(lambda: not trainer.is_running(), "the trainer is gone", seconds=5)
    assert_ended_once(workshop, job_id)


def test_a_killed_scheduler_is_missed_by_nobody_once_it_is_back(workshop):
    scheduler = workshop.start_scheduler()
    worker = workshop.start_worker()
    job_id = workshop.add_job(script=SLOW)
    workshop.ring()
    workshop.wait_for_step(job_id, 5)
    scheduler.kill()
    kill_tree(worker.pid)
    unheard = workshop.add_job()
    workshop.start_scheduler()
    workshop.start_worker()
    assert_ended_once(workshop, job_id)
    assert_ended_once(workshop, unheard)


def test_jobs_survive_a_flushed_and_restarted_valkey_and_each_ends_once(workshop, broker):
    workshop.start_scheduler()
    worker = workshop.start_worker()
    jobs = [workshop.add_job(script={"steps": 20, "step_seconds": 0.05}) for _ in range(4)]
    workshop.ring(times=4)
    workshop.wait_for_step(jobs[0], 2)
    with workshop.app.connection_for_write() as connection:
        connection.default_channel.client.flushall()
    broker.process.kill()
    broker.process.wait()
    # Away for a while, so that the worker meets the closed door too.
    workshop.wait_for_step(jobs[0], 15)
    restarted, _ = start_valkey(Path(workshop.broker_url.partition("://")[2]).parent)
    try:
        for job_id in jobs:
            assert assert_ended_once(workshop, job_id).attempt == 1
        assert worker.poll() is None  # the same worker hears again
    finally:
        restarted.kill()
        restarted.wait()


def test_a_worker_idle_during_a_valkey_restart_hears_the_next_ring(workshop, broker):
    worker = workshop.start_worker()
    assert_ended_once(workshop, rung_job(workshop))
    # Idle: its ring is acknowledged, a moment after the job's end is written.
    wait_until(lambda: outstanding(workshop.app, "default") == (0, 0), "the ring is acknowledged")
    broker.process.kill()
    broker.process.wait()
    restarted, _ = start_valkey(Path(workshop.broker_url.partition("://")[2]).parent)
    try:
        assert_ended_once(workshop, rung_job(workshop))
        assert worker.poll() is None
    finally:
        restarted.kill()
        restarted.wait()


def test_five_rings_for_each_job_train_nothing_twice(workshop):
    workshop.start_worker()
    workshop.start_worker()
    jobs = [workshop.add_job() for _ in range(3)]
    workshop.ring(times=15)
    for job_id in jobs:
        assert_ended_once(workshop, job_id)
    wait_until(
        lambda: outstanding(workshop.app, "default", 3600) == (0, 0), "every ring has been heard"
    )
    assert all(workshop.states(job_id).count("starting") == 1 for job_id in jobs)


def test_sigterm_drains_to_a_checkpoint_and_counts_nothing(workshop):
    first = workshop.start_worker()
    job_id = workshop.add_job(script=SLOW | {"checkpoint_every": 1000})
    workshop.ring()
    workshop.wait_for_step(job_id, 12)
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0
    job = workshop.job(job_id)
    assert (job.state, job.crashes, job.not_before) == (State.QUEUED, 0, None)
    assert job.fruitless_attempts == 0
    workshop.start_worker()  # the drained worker rang for it
    job = assert_ended_once(workshop, job_id)
    assert job.metrics["steps_this_attempt"] <= 48


def test_sigterm_ends_an_idle_worker_at_once(workshop):
    worker = workshop.start_worker()
    wait_until(lambda: "ready" in workshop.log(worker), "the worker is ready")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0


def test_three_crashes_at_one_step_fail_the_job_as_poisoned(workshop):
    workshop.start_scheduler()
    workshop.start_worker()
    crash = {"at": 7, "do": "crash"}
    job_id = workshop.add_job(script={"faults": {str(number): crash for number in range(1, 9)}})
    workshop.ring()
    job = workshop.wait_for_end(job_id)
    assert (job.state, job.error["code"], job.attempt, job.crashes) == ("failed", "poisoned", 3, 3)


def test_a_database_cut_off_during_a_run_costs_nothing(workshop, postgres):
    workshop.start_scheduler()
    workshop.start_worker()
    job_id = workshop.add_job(script=SLOW)
    workshop.ring()
    workshop.wait_for_step(job_id, 5)
    name = workshop.engine.url.database
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608
    )
    time.sleep(7)  # longer than the lease window: the outage itself is what is tested
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert assert_ended_once(workshop, job_id).attempt == 1
    steps = [e.data["step"] for e in workshop.events(job_id) if e.type == "metrics"]
    assert set(range(1, 61)) <= set(steps)  # nothing of the feed was lost


def test_publication_waits_for_an_absent_inference_service_and_keeps_its_lease(workshop):
    workshop.start_scheduler()
    workshop.start_worker()
    workshop.inference.status = 503
    job_id = workshop.add_job()
    workshop.ring()
    workshop.wait_for_state(job_id, State.PUBLISHING)
    first = workshop.job(job_id).lease_seq
    wait_until(lambda: workshop.job(job_id).lease_seq > first + 7, "the lease goes on")
    assert workshop.job(job_id).state == State.PUBLISHING
    assert workshop.adapters(job_id) == []
    workshop.inference.status = 200
    assert assert_ended_once(workshop, job_id).attempt == 1
