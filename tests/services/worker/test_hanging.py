"""What stands still: a trainer that says nothing, a database that does not answer."""

import os
import signal
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import make_url

from services.worker.drain import Drain
from services.worker.lease import Lease, Order
from services.worker.run_job import held_job
from shared.db import make_engine
from shared.jobs.state import State
from tests.conftest import wait_until
from tests.services.worker.workshop import assert_ended_once, rung_job

HEARTBEAT = 0.05
BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
REFUSED = "SELECT xact_rollback FROM pg_stat_database WHERE datname = %s"


class Held(NamedTuple):
    """A lease whose heartbeats can be watched."""

    lease: Lease
    job_id: str
    drain: Drain
    orders: list[Order]


@pytest.fixture
def held(workshop):
    engine, drain = make_engine(workshop.database_url, answer_seconds=60), Drain()
    orders: list[Any] = []
    job_id = workshop.add_job(attempt=1, state=State.RUNNING)
    lease = Lease(
        engine=engine,
        held=held_job(workshop.job(job_id)),
        heartbeat_seconds=HEARTBEAT,
        drain=drain,
        give=orders.append,
        kill=lambda: None,
    )
    with lease:
        yield Held(lease, job_id, drain, orders)
    engine.dispose()


def wait_for_heartbeats(workshop, job_id):
    before = workshop.job(job_id).lease_seq
    wait_until(lambda: workshop.job(job_id).lease_seq > before + 1, "heartbeats go on")


@contextmanager
def as_superuser(postgres):
    plain = make_url(postgres.superuser_url).set(drivername="postgresql")
    url = plain.render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_a_drain_is_heard_while_a_heartbeat_waits_for_a_database_that_stands_still(
    workshop, held, postgres
):
    wait_for_heartbeats(workshop, held.job_id)
    with as_superuser(postgres) as superuser:
        found = superuser.execute(BACKENDS, [make_url(workshop.database_url).database])
        backends = [pid for (pid,) in found]
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(held.lease._writing.locked, "a heartbeat waits")
        held.drain.request()
        wait_until(lambda: held.orders == [Order.DRAIN], "the drain is heard", seconds=5)
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)


def test_heartbeats_outlive_a_standby_that_takes_no_writes(workshop, held, postgres):
    wait_for_heartbeats(workshop, held.job_id)
    name = make_url(workshop.database_url).database
    with as_superuser(postgres) as superuser:
        superuser.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        superuser.execute(CUT, [name])
        wait_until(lambda: superuser.execute(REFUSED, [name]).fetchone()[0] > 3, "it refuses")
        superuser.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    wait_for_heartbeats(workshop, held.job_id)


def test_a_trainer_that_says_nothing_is_killed_and_counted_as_a_crash(workshop):
    job_id = rung_job(workshop, script={"faults": {"1": {"at": 3, "do": "hang"}}})
    workshop.start_scheduler()
    workshop.start_worker(
        TAILOR_TRAINER_SILENCE_SECONDS="0.5", TAILOR_CRASH_BACKOFF_SECONDS="[0.1]"
    )
    assert assert_ended_once(workshop, job_id).attempt == 2
    messages = [event.message for event in workshop.events(job_id)]
    assert any("no sign of life for 0.5 s" in message for message in messages)


def test_a_trainer_that_never_begins_is_killed_as_well(workshop):
    job_id = rung_job(workshop, script={"faults": {"1": {"at": 0, "do": "hang"}}})
    workshop.start_scheduler()
    workshop.start_worker(TAILOR_TRAINER_START_SECONDS="4", TAILOR_CRASH_BACKOFF_SECONDS="[0.1]")
    assert assert_ended_once(workshop, job_id).attempt == 2
