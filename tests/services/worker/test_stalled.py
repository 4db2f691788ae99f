"""A worker that slept past its lease and wakes: the job is another's, so it changes nothing.

While it wakes everybody else stands still, so that the whole database and the whole store can be
compared. The same scene with a worker that lacks the guard does damage: these tests can fail.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from subprocess import Popen
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from shared.db import Row, transaction
from shared.jobs.state import State
from shared.replicas.models import InferenceReplica
from shared.storage import verify_manifest
from tests.conftest import wait_until
from tests.services.worker.workshop import (
    Workshop,
    assert_ended_once,
    descendants,
    rung_job,
    trainer_of,
)

pytestmark = pytest.mark.fault


@dataclass
class Scene:
    """A stalled worker has woken, and has given up or done what it could."""

    job_id: str
    trainer: psutil.Process
    before: Any
    after: Any


def scene(workshop: Workshop, stalled_in: State, module: str) -> Scene:
    """Stall a worker, let another come as far as publishing, wake the first, and compare."""
    scheduler = workshop.start_scheduler()
    stalled = workshop.start(module)
    workshop.inference.answering.clear()
    steps = 60 if stalled_in == State.RUNNING else 10
    job_id = rung_job(workshop, script={"steps": steps, "step_seconds": 0.05})
    workshop.wait_for_state(job_id, stalled_in)
    if stalled_in == State.PUBLISHING:
        wait_until(lambda: workshop.inference.asked, "its check is being answered")
    with ExitStack() as others_asleep:
        with asleep(workshop, job_id, stalled):
            trainer = trainer_of(stalled)
            workshop.inference.asked.clear()
            second = workshop.start_worker()
            workshop.wait_for_state(job_id, State.QUEUED)
            workshop.ring()
            wait_until(lambda: workshop.inference.asked, "the second worker publishes")
            scheduler.kill()
            others_asleep.enter_context(asleep(workshop, job_id, second))
            before = world(workshop, job_id)
            workshop.inference.answering.set()
        wait_until(lambda: "released" in workshop.log(stalled), "the woken worker is done")
        after = world(workshop, job_id)
    return Scene(job_id, trainer, before, after)


@contextmanager
def asleep(workshop: Workshop, job_id: str, worker: Popen[bytes]):
    """Stop a worker's processes just after a heartbeat, so that no transaction is cut in two."""
    seen = workshop.job(job_id).lease_seq
    wait_until(lambda: workshop.job(job_id).lease_seq > seen, "a heartbeat")
    family = [psutil.Process(worker.pid), *descendants(worker.pid)]
    for process in family:
        process.suspend()
    yield
    for process in family:
        process.resume()


def world(workshop: Workshop, job_id: str) -> dict[str, Any]:
    """Every row of every table, and every file but those of the first attempt's own folder.

    Inference processes give signs of life meanwhile: those rows are no worker's.
    """
    own, found = workshop.store.attempt(job_id, 1), dict[str, Any]()
    with transaction(workshop.engine) as session:
        for table in Row.metadata.sorted_tables:
            if table is InferenceReplica.__table__:
                continue
            found[table.name] = sorted(map(str, session.execute(select(table))))
    for path in workshop.store.root.rglob("*"):
        if not path.is_relative_to(own):
            content = path.read_bytes() if path.is_file() else None
            found[str(path)] = (path.stat().st_mtime_ns, content)
    return found


@pytest.mark.parametrize("stalled_in", [State.RUNNING, State.PUBLISHING])
def test_a_worker_stalled_beyond_its_lease_can_finish_nothing(workshop, stalled_in):
    seen = scene(workshop, stalled_in, "tests.services.worker.scripted_worker")
    assert seen.after == seen.before
    wait_until(lambda: not seen.trainer.is_running(), "its trainer is killed", seconds=5)
    job = assert_ended_once(workshop, seen.job_id)
    assert published_attempt(workshop, job.id) == 2


def test_the_guard_on_the_attempt_is_what_stops_a_stalled_worker(workshop):
    """Without it the woken worker publishes over the head of the one that has the job."""
    seen = scene(workshop, State.PUBLISHING, "tests.services.worker.unguarded_worker")
    assert seen.after != seen.before
    assert workshop.job(seen.job_id).state == State.SUCCEEDED
    assert published_attempt(workshop, seen.job_id) == 1


def published_attempt(workshop: Workshop, job_id: str) -> int:
    [final] = [row for row in workshop.adapters(job_id) if row.kind == "final"]
    return int(verify_manifest(workshop.store.adapter(final.id))["attempt"])
