"""A lease lost at awkward moments, by the worker's own parts in this process."""

import os
import subprocess
from threading import Event

import psycopg
import pytest
from sqlalchemy import update

from services.worker.__main__ import trainer_environment
from services.worker.drain import Drain
from services.worker.endings import Outcome
from services.worker.lease import Lease, Order
from services.worker.run_job import held_job, run_next
from services.worker.settings import WorkerSettings
from services.worker.trainer import Trainer
from services.worker.workplace import Workplace
from shared.catalog import load_catalog
from shared.db import transaction
from shared.db.tables import FineTuningJob
from shared.jobs.state import State
from shared.replicas.directory import Directory
from tests.services.worker.scripted_worker import SCRIPTED
from tests.services.worker.workshop import assert_ended_once


class SlowTrainer(Trainer):
    """Its first process comes up only after ``meanwhile``, and after a kill that found nothing."""

    meanwhile = None

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.killed = Event()

    def _start(self):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            self.killed.clear()
            meanwhile()
            assert self.killed.wait(10)
        return super()._start()

    def kill(self):
        super().kill()
        self.killed.set()


@pytest.fixture
def place(workshop, monkeypatch):
    """A worker's parts in this process."""
    for name, value in workshop.environment().items():
        monkeypatch.setenv(name, value)
    trainer = SlowTrainer(SCRIPTED, trainer_environment(os.environ), 9)
    yield Workplace(
        settings=WorkerSettings(),
        engine=workshop.engine,
        catalog=load_catalog(),
        replicas=Directory(workshop.engine, load_catalog()),
        trainer=trainer,
        drain=Drain(),
    )
    trainer.kill()


def take_away(workshop, job_id):
    """What the scheduler and another worker do to a job whose lease stood still."""
    with transaction(workshop.engine) as session:
        session.execute(
            update(FineTuningJob)
            .where(FineTuningJob.id == job_id)
            .values(attempt=FineTuningJob.attempt + 1)
        )


def test_a_trainer_that_starts_for_a_lost_job_is_gone_before_the_next(workshop, place):
    lost = workshop.add_job(script={"steps": 20})
    place.trainer.meanwhile = lambda: take_away(workshop, lost)
    assert run_next(place, "default") is Outcome.LOST
    assert place.trainer._process is None
    following = workshop.add_job()
    assert run_next(place, "default") is Outcome.ENDED
    assert assert_ended_once(workshop, following).attempt == 1
    assert workshop.events(lost)[-1].state == State.STARTING


def test_a_result_outside_the_attempts_folder_is_refused_and_left_where_it_is(
    workshop, place, tmp_path
):
    job_id = workshop.add_job(script={"reports": str(tmp_path / "of-another-job")})
    assert run_next(place, "default") is Outcome.ENDED
    job = workshop.job(job_id)
    assert (job.state, job.crashes) == (State.QUEUED, 1)
    assert State.PUBLISHING not in workshop.states(job_id)
    assert (tmp_path / "of-another-job" / "adapter").is_dir()
    assert place.trainer._process is None


def test_a_lost_answer_to_the_last_commit_is_met_by_the_guard(workshop, place, monkeypatch):
    lost, commit = list[bool](), workshop.engine.dialect.do_commit

    def commit_and_lose_the_answer(connection):
        commit(connection)
        succeeded = "SELECT 1 FROM fine_tuning_jobs WHERE state = 'succeeded'"
        if not lost and connection.execute(succeeded).fetchone():
            lost.append(True)
            raise psycopg.OperationalError("the connection was cut")

    monkeypatch.setattr(workshop.engine.dialect, "do_commit", commit_and_lose_the_answer)
    job_id = workshop.add_job()
    assert run_next(place, "default") is Outcome.LOST
    assert lost
    assert_ended_once(workshop, job_id)


def test_the_loss_is_told_even_when_the_trainer_cannot_be_killed(workshop):
    told: list[object] = []

    def kill():
        raise subprocess.TimeoutExpired("trainer", 5)

    lease = Lease(
        engine=workshop.engine,
        held=held_job(workshop.job(workshop.add_job(attempt=1))),
        heartbeat_seconds=60,
        drain=Drain(),
        give=told.append,
        kill=kill,
    )
    with lease, pytest.raises(subprocess.TimeoutExpired):
        lease.confirm()
    assert told == [Order.LOST]
