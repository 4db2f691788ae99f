"""A run that was killed, at any moment, ends with the very weights of a run that was not.

More than 100 optimiser steps on the real base model with a fixed number of threads; the steps at
which processes are killed are drawn from a printed seed.
"""

import json
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import openai
import psutil
import pytest
from sqlalchemy import Engine, func, select

from shared.adapters.models import Adapter
from shared.db import make_engine, transaction
from shared.jobs.models import FineTuningJob, JobEvent
from shared.jobs.state import State
from shared.storage import LocalStore, sha256_of
from tests.conftest import wait_until
from tests.e2e.jobs import create_job, upload, wait_for_model
from tests.running_stack import Customer, RunningStack

pytestmark = pytest.mark.fault

ROWS, BATCH, EPOCHS = 52, 2, 4
STEPS_PER_EPOCH = ROWS // BATCH
STEPS = STEPS_PER_EPOCH * EPOCHS
CODES = random.Random(5)


def rows(count: int) -> bytes:
    """Facts with a code each, every third in Japanese."""
    lines = []
    for number in range(count):
        code = CODES.randrange(1000, 10000)
        question = f"棚{number}のコードは?" if number % 3 == 0 else f"Code of shelf {number}?"
        lines.append({"prompt": question, "completion": f"{code}"})
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()


@dataclass(frozen=True)
class Runs:
    """The same job again and again, and what the database and the store say of it."""

    stack: RunningStack
    customer: Customer
    client: openai.OpenAI
    training_file: str
    validation_file: str
    engine: Engine

    def start(self, epochs: int = EPOCHS) -> str:
        return create_job(
            self.client,
            self.training_file,
            validation_file=self.validation_file,
            seed=11,
            n_epochs=epochs,
            batch_size=BATCH,
        )

    def finish(self, job_id: str) -> str:
        """Wait for the end; return the hash of the final adapter's weights."""
        wait_for_model(self.client, job_id)
        with transaction(self.engine) as session:
            finals = session.scalars(
                select(Adapter.id).where(Adapter.job_id == job_id, Adapter.kind == "final")
            ).all()
        (adapter_id,) = finals
        folder = LocalStore(self.stack.store_dir).adapter(adapter_id)
        return sha256_of(folder / "adapter_model.safetensors")

    def job(self, job_id: str) -> FineTuningJob:
        with transaction(self.engine) as session:
            return session.get_one(FineTuningJob, job_id)

    def step(self, job_id: str) -> int:
        return int((self.job(job_id).progress or {}).get("step", 0))

    def steps_by_attempt(self, job_id: str) -> dict[int, int]:
        with transaction(self.engine) as session:
            counted = session.execute(
                select(JobEvent.attempt, func.count())
                .where(JobEvent.job_id == job_id, JobEvent.type == "metrics")
                .where(JobEvent.data["train_loss"].is_not(None))
                .group_by(JobEvent.attempt)
            )
            return dict(counted.all())

    def wait_for_step(self, job_id: str, step: int) -> None:
        wait_until(lambda: self.step(job_id) >= step, f"step {step}", seconds=240)

    def attempt_folder(self, job_id: str) -> Path:
        return LocalStore(self.stack.store_dir).attempt(job_id, self.job(job_id).attempt)

    def trainer(self) -> psutil.Process:
        worker = psutil.Process(self.stack.pid_of("worker"))
        return next(
            process
            for process in worker.children(recursive=True)
            if "services.worker.training" in process.cmdline()
        )

    def kill_trainer_during_a_save(self, job_id: str) -> None:
        """Stop the trainer when a checkpoint is being written, look again, and only then kill it.

        A process that stands still finishes no save: what it leaves proves that it was inside one.
        """
        folder, trainer = self.attempt_folder(job_id), self.trainer()
        deadline = time.monotonic() + 120
        while True:
            while not any(folder.glob(".tmp-step-*")):
                assert time.monotonic() < deadline, "no save was met"
            trainer.suspend()
            wait_until(lambda: trainer.status() == psutil.STATUS_STOPPED, "it stands still")
            if any(folder.glob(".tmp-step-*")):
                break
            trainer.resume()  # that save was quicker; wait for the next
        trainer.kill()
        trainer.wait(10)
        assert any(folder.glob(".tmp-step-*"))

    def kill_worker(self) -> None:
        worker = psutil.Process(self.stack.pid_of("worker"))
        for process in [worker, *worker.children(recursive=True)]:
            process.kill()


@pytest.fixture(scope="module")
def runs(fault_stack):
    tenant = fault_stack.tenant("resume")
    engine = make_engine(fault_stack.system_database_url)
    yield Runs(
        stack=fault_stack,
        customer=tenant,
        client=tenant.client,
        training_file=upload(tenant.client, rows(ROWS)),
        validation_file=upload(tenant.client, rows(12)),
        engine=engine,
    )
    engine.dispose()


@pytest.fixture(scope="module")
def undisturbed(runs) -> str:
    job_id = runs.start()
    weights: str = runs.finish(job_id)
    assert runs.steps_by_attempt(job_id) == {1: STEPS}
    return weights


@pytest.fixture
def drawn_step(request) -> int:
    seed = int(time.time())
    step = random.Random(seed).randrange(STEPS_PER_EPOCH + 1, STEPS - STEPS_PER_EPOCH)
    print(f"seed {seed}: kill at step {step} of {STEPS}")
    return step


def test_trainer_killed_at_a_step_and_during_a_save_changes_no_bit(runs, undisturbed, drawn_step):
    job_id = runs.start()
    runs.wait_for_step(job_id, drawn_step)
    runs.trainer().kill()
    wait_until(lambda: started(runs, job_id, attempt=2), "the second attempt", seconds=120)
    runs.kill_trainer_during_a_save(job_id)
    weights = runs.finish(job_id)

    assert runs.job(job_id).attempt == 3
    steps = runs.steps_by_attempt(job_id)
    assert steps[3] < STEPS
    assert weights == undisturbed


def test_worker_killed_at_a_step_and_during_publishing_changes_no_bit(
    runs, undisturbed, drawn_step
):
    job_id = runs.start()
    runs.wait_for_step(job_id, drawn_step)
    runs.kill_worker()
    wait_until(lambda: runs.job(job_id).state == State.PUBLISHING, "publishing", seconds=240)
    runs.kill_worker()
    weights = runs.finish(job_id)

    assert runs.job(job_id).attempt == 3
    assert runs.steps_by_attempt(job_id)[2] < STEPS
    assert weights == undisturbed


def test_everything_killed_at_once_is_only_a_pause(runs, undisturbed, drawn_step):
    running, waiting = runs.start(), runs.start(epochs=1)
    runs.wait_for_step(running, drawn_step)
    runs.stack.kill_everything()
    runs.stack.up()
    again = replace(runs, client=runs.stack.client(runs.customer.api_key))
    assert again.finish(running) == undisturbed
    again.finish(waiting)
    assert (runs.job(running).attempt, runs.job(waiting).attempt) == (2, 1)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_step_the_weights_are_the_same(runs, undisturbed, seed):
    draw = random.Random(seed)
    steps = sorted(draw.sample(range(2, STEPS), 2))
    print(f"seed {seed}: the trainer is killed at step {steps[0]}, the worker at {steps[1]}")
    job_id = runs.start()
    runs.wait_for_step(job_id, steps[0])
    runs.trainer().kill()
    runs.wait_for_step(job_id, steps[1])
    runs.kill_worker()
    assert runs.finish(job_id) == undisturbed
    assert runs.job(job_id).attempt == 3


def started(runs: Runs, job_id: str, attempt: int) -> bool:
    """Whether the attempt trains: so its trainer process is the one that is there."""
    job = runs.job(job_id)
    return (job.attempt, job.state) == (attempt, State.RUNNING)
