"""How attempts end when the trainer or its result is at fault; one worker sees them all.

After each test the worker must still be alive, and idle again: nothing of a bad end stays behind.
"""

import subprocess
import time

import pytest

from services.worker.publish import UNANSWERED
from shared.clock import now
from shared.db import transaction
from shared.db.tables import FineTuningJob
from shared.jobs.state import State
from tests.conftest import short_folder, wait_until
from tests.services.worker.inference_server import InferenceServer
from tests.services.worker.scripted_trainer import CHECKS
from tests.services.worker.workshop import (
    BASE,
    FASTER,
    Workshop,
    assert_ended_once,
    rung_job,
    start_valkey,
    trainer_of,
)


@pytest.fixture(scope="module")
def shared_workshop(tmp_path_factory, postgres):
    """A workshop with one worker, which outlives the tests."""
    inference = InferenceServer()
    with postgres.fresh_database() as database, short_folder() as folder:
        valkey, url = start_valkey(folder)
        place = tmp_path_factory.mktemp("workshop")
        workshop = Workshop(place, database.system_url, url, inference)
        workshop.start_worker()
        yield workshop
        workshop.close()
        valkey.kill()
        valkey.wait()
    inference.close()


@pytest.fixture
def worker(shared_workshop):
    [process] = shared_workshop.processes
    yield process
    shared_workshop.inference.status = 200
    shared_workshop.inference.code = None
    shared_workshop.inference.answering.set()
    shared_workshop.inference.chat_status = 200
    shared_workshop.inference.chatting.set()
    shared_workshop.inference.logprobs = CHECKS[0].adapter_logprobs
    assert process.poll() is None


@pytest.fixture
def workshop(shared_workshop, worker):
    return shared_workshop


@pytest.mark.fault
def test_a_trainer_killed_from_outside_goes_on_at_once_from_its_checkpoint(workshop, worker):
    job_id = workshop.add_job(script={"steps": 60, "step_seconds": 0.05})
    workshop.ring()
    workshop.wait_for_step(job_id, 12)
    trainer_of(worker).kill()
    job = assert_ended_once(workshop, job_id)
    assert job.attempt == 2
    assert job.crashes == 0
    assert job.metrics["steps_this_attempt"] <= 50


def test_a_running_job_is_cancelled_quickly_and_the_trainer_stays_warm(workshop, worker):
    job_id = workshop.add_job(script={"steps": 2000, "step_seconds": 0.05})
    workshop.ring()
    workshop.wait_for_step(job_id, 3)
    trainer = trainer_of(worker).pid
    asked = time.monotonic()
    workshop.request_cancel(job_id)
    workshop.wait_for_state(job_id, State.CANCELLED)
    assert time.monotonic() - asked < 10 / FASTER
    assert_ended_once(workshop, rung_job(workshop))
    assert trainer_of(worker).pid == trainer


def test_a_trainer_that_does_not_listen_is_killed_when_its_job_is_cancelled(workshop, worker):
    job_id = workshop.add_job(script={"faults": {"1": {"at": 4, "do": "hang"}}})
    workshop.ring()
    workshop.wait_for_step(job_id, 3)
    trainer = trainer_of(worker)
    workshop.request_cancel(job_id)
    workshop.wait_for_state(job_id, State.CANCELLED, seconds=10 / FASTER)
    assert not trainer.is_running()


def test_out_of_memory_is_tried_twice_more_with_half_the_micro_batch(workshop):
    oom = {"at": 3, "do": "out_of_memory"}
    once = workshop.add_job(script={"faults": {"1": oom}})
    workshop.ring()
    assert assert_ended_once(workshop, once).micro_batch_divisor == 2
    always = workshop.add_job(script={"faults": {"1": oom, "2": oom, "3": oom}})
    workshop.ring()
    job = workshop.wait_for_end(always)
    assert (job.state, job.error["code"], job.attempt) == ("failed", "out_of_memory", 3)


def test_a_full_disk_makes_a_job_wait_and_then_go_on(workshop):
    full = {"at": 3, "do": "disk_full"}
    job_id = workshop.add_job(script={"faults": {"1": full}})
    workshop.ring()
    job = workshop.wait_for_state(job_id, State.QUEUED)
    wait_until(lambda: workshop.job(job_id).not_before, "it waits")
    job = workshop.job(job_id)
    assert (job.crashes, job.fruitless_attempts) == (0, 0)
    assert "waiting" in job.progress
    with transaction(workshop.engine) as session:
        session.get_one(FineTuningJob, job_id).not_before = None
    workshop.ring()
    assert assert_ended_once(workshop, job_id).attempt == 2


def test_a_disk_too_full_for_the_attempts_folder_makes_the_job_wait(workshop, small_store):
    job_id = workshop.add_job()
    small_store(workshop.store.job_attempts(job_id))
    workshop.ring()
    wait_until(lambda: workshop.job(job_id).not_before, "it waits")
    job = workshop.job(job_id)
    assert (job.state, job.crashes) == (State.QUEUED, 0)
    assert "disk is full" in workshop.events(job_id)[-1].message


@pytest.fixture
def small_store():
    """Mount a file system without room for one more folder; only root may."""
    mounted = []

    def mount(folder):
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("no right to mount a file system")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_bad_data_fails_at_once_and_names_the_line(workshop):
    job_id = workshop.add_job(script={"faults": {"1": {"at": 1, "do": "bad_data"}}})
    workshop.ring()
    job = workshop.wait_for_end(job_id)
    assert job.error == {
        "code": "invalid_training_file",
        "message": "line 3 is empty",
        "param": "training_file",
    }


def test_a_base_model_that_was_removed_under_a_queued_job_is_a_clear_end(workshop):
    base = workshop.folder / "models" / BASE
    removed = base.rename(workshop.folder / "removed")
    job = workshop.wait_for_end(rung_job(workshop))
    removed.rename(base)
    assert (job.state, job.attempt) == ("failed", 1)
    assert job.error["param"] == "model"
    assert job.error["message"] == f"The base model `{BASE}` is not installed on this worker"


def test_a_trainer_that_talks_nonsense_counts_as_crashed(workshop):
    job_id = workshop.add_job(script={"faults": {"1": {"at": 2, "do": "nonsense"}}})
    workshop.ring()
    wait_until(lambda: workshop.job(job_id).crashes == 1, "a crash is counted")
    wait_until(lambda: workshop.job(job_id).not_before <= now(), "its waiting time is over")
    workshop.ring()
    assert assert_ended_once(workshop, job_id).attempt == 2


def test_a_job_is_cancelled_also_while_it_waits_for_inference(workshop):
    workshop.inference.status = 503
    job_id = workshop.add_job()
    workshop.ring()
    workshop.wait_for_state(job_id, State.PUBLISHING)
    workshop.request_cancel(job_id)
    workshop.wait_for_state(job_id, State.CANCELLED, seconds=10 / FASTER)
    assert workshop.adapters(job_id) == []


def test_a_job_is_cancelled_also_while_inference_hangs(workshop):
    workshop.inference.asked.clear()
    workshop.inference.answering.clear()
    job_id = workshop.add_job()
    workshop.ring()
    workshop.wait_for_state(job_id, State.PUBLISHING)
    wait_until(lambda: workshop.inference.asked, "inference has been asked")
    workshop.request_cancel(job_id)
    workshop.wait_for_state(job_id, State.CANCELLED, seconds=10 / FASTER)
    assert workshop.adapters(job_id) == []


def test_a_job_is_cancelled_also_while_its_model_is_asked(workshop):
    workshop.inference.chats.clear()
    workshop.inference.chatting.clear()
    job_id = rung_job(workshop, script={"asks": True})
    wait_until(lambda: workshop.inference.chats, "its model has been asked")
    workshop.request_cancel(job_id)
    workshop.wait_for_state(job_id, State.CANCELLED, seconds=10 / FASTER)
    assert workshop.adapters(job_id) == []
    assert workshop.examples(job_id)["answers"]["best"] == []


def test_a_model_that_answers_no_question_is_published_all_the_same_with_a_warning(workshop):
    workshop.inference.chat_status = 404
    job_id = rung_job(workshop, script={"asks": True})
    assert "generated" not in assert_ended_once(workshop, job_id).metrics
    assert workshop.examples(job_id)["first_batch"]
    assert UNANSWERED in {e.message for e in workshop.events(job_id) if e.level == "warn"}


def test_an_engine_that_refuses_while_it_ends_fails_no_job(workshop):
    workshop.inference.statuses = [400, 400, 503, 400]
    assert_ended_once(workshop, rung_job(workshop))
    assert workshop.inference.statuses == []


def assert_published_without_training(workshop, job_id):
    """A resumed job ends well, and nothing was trained for it."""
    before = len(workshop.states(job_id))
    workshop.resume(job_id)
    assert_ended_once(workshop, job_id)
    assert workshop.states(job_id)[before:] == ["queued", "starting", "publishing", "succeeded"]


@pytest.mark.parametrize(
    ("status", "code", "ends_as"),
    [(400, None, "served_differs"), (422, "adapter_refused", "adapter_refused")],
)
def test_a_refusal_that_repeats_pauses_the_job_and_what_is_trained_is_kept(
    workshop, status, code, ends_as
):
    workshop.inference.status, workshop.inference.code = status, code
    job_id = rung_job(workshop)
    job = workshop.wait_for_state(job_id, State.PAUSED)
    assert job.error["code"] == ends_as
    last = workshop.events(job_id)[-1]
    assert (last.level, f"{job_id}/resume" in last.message) == ("error", True)
    assert ("layer 19" in last.message) == (code is not None)
    workshop.inference.status = 200
    assert_published_without_training(workshop, job_id)


@pytest.mark.parametrize("logprobs", [(-3.0, -4.0), (-1.1, -1.2)], ids=["base", "another"])
def test_a_model_that_does_not_answer_as_trained_is_not_published_and_not_lost(workshop, logprobs):
    workshop.inference.logprobs = logprobs
    job_id = rung_job(workshop)
    job = workshop.wait_for_state(job_id, State.PAUSED)
    assert job.error["code"] == "served_differs"
    assert workshop.adapters(job_id) == []
    workshop.inference.logprobs = CHECKS[0].adapter_logprobs
    assert_published_without_training(workshop, job_id)


def test_a_job_of_a_base_that_is_not_served_is_left_in_the_queue_and_stops_nobody(workshop):
    unserved = workshop.add_job(base_model="smollm2-135m-instruct-hub", priority=9)
    assert_ended_once(workshop, rung_job(workshop))
    assert (workshop.job(unserved).state, workshop.job(unserved).attempt) == (State.QUEUED, 0)


def test_a_trained_job_whose_base_is_not_served_any_more_makes_room_for_others(workshop):
    workshop.inference.status, workshop.inference.code = 422, "base_not_served"
    job_id = rung_job(workshop)
    wait_until(lambda: workshop.job(job_id).not_before, "it waits in the queue")
    job = workshop.job(job_id)
    assert (job.state, job.fruitless_attempts) == (State.QUEUED, 0)
    workshop.inference.status = 200
    assert_ended_once(workshop, rung_job(workshop))


def test_an_adapter_with_a_number_that_is_none_is_not_published(workshop):
    workshop.inference.asked.clear()
    job_id = workshop.add_job(script={"poison": "nan"})
    workshop.ring()
    job = workshop.wait_for_end(job_id)
    assert (job.state, job.error["code"]) == ("failed", "invalid_adapter")
    assert workshop.inference.asked == []
