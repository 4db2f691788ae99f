"""What is trained is published later without training again, however publishing ended before."""

import pytest

from shared.catalog import load_catalog
from shared.jobs.state import State
from shared.storage import verify_manifest
from tests.conftest import wait_until
from tests.services.worker.workshop import (
    BASE,
    assert_ended_once,
    kill_tree,
    rung_job,
)

PUBLISHED_ONLY = ["queued", "starting", "publishing", "succeeded"]


def test_after_its_time_publishing_is_given_up_and_the_worker_free_and_nothing_lost(workshop):
    workshop.start_worker(
        TAILOR_PUBLISH_WAIT_SECONDS="0.2",
        TAILOR_PUBLISH_RETRY_SECONDS="0.1",
        TAILOR_PUBLISH_GIVE_UP_SECONDS="0.1",
    )
    workshop.inference.status = 503
    job_id = rung_job(workshop)
    job = workshop.wait_for_state(job_id, State.PAUSED)
    assert (job.error["code"], workshop.events(job_id)[-1].level) == ("inference_away", "error")
    workshop.inference.status = 200
    assert_ended_once(workshop, rung_job(workshop))  # the worker does others' work meanwhile
    before = len(workshop.states(job_id))
    workshop.resume(job_id)
    job = assert_ended_once(workshop, job_id)
    assert workshop.states(job_id)[before:] == PUBLISHED_ONLY
    [final] = [row for row in workshop.adapters(job_id) if row.kind == "final"]
    profile = load_catalog().get(BASE).profile.sha256()
    assert final.profile_sha256 == profile
    meta = verify_manifest(workshop.store.adapter(final.id))
    assert (meta["attempt"], meta["trained_by"], meta["profile_sha256"]) == (2, 1, profile)
    assert job.metrics["steps_this_attempt"] == 10


@pytest.mark.fault
@pytest.mark.parametrize("while_asked", ["for its check", "held-out questions"])
def test_a_worker_killed_while_it_publishes_costs_no_training(workshop, while_asked):
    inference = workshop.inference
    waits, heard = {
        "for its check": (inference.answering, inference.asked),
        "held-out questions": (inference.chatting, inference.chats),
    }[while_asked]
    workshop.start_scheduler()
    worker = workshop.start_worker()
    waits.clear()
    job_id = rung_job(workshop, script={"asks": True})
    wait_until(lambda: heard, "it publishes")
    kill_tree(worker.pid)
    waits.set()
    workshop.start_worker()
    job = assert_ended_once(workshop, job_id)
    assert job.metrics["generated"]["n"] == 2
    assert len(workshop.examples(job_id)["first_batch"]) == 1
    assert workshop.states(job_id)[3:] == PUBLISHED_ONLY
    assert (job.attempt, job.fruitless_attempts) == (2, 1)


@pytest.mark.parametrize("damage", ["checks", "weights", "no manifest"])
def test_a_finished_training_that_is_damaged_is_done_again(workshop, damage):
    workshop.start_worker(
        TAILOR_PUBLISH_WAIT_SECONDS="0.2",
        TAILOR_PUBLISH_RETRY_SECONDS="0.1",
        TAILOR_PUBLISH_GIVE_UP_SECONDS="0.1",
    )
    workshop.inference.status = 503
    job_id = rung_job(workshop)
    workshop.wait_for_state(job_id, State.PAUSED)
    folder = workshop.store.attempt(job_id, 1)
    match damage:
        case "checks":
            (folder / "finished" / "served_check.json").write_text("[]")
        case "weights":
            with (folder / "adapter" / "adapter_model.safetensors").open("r+b") as file:
                file.seek(-1, 2)
                file.write(b"!")
        case _:
            (folder / "finished" / "MANIFEST.json").unlink()
    workshop.inference.status = 200
    before = len(workshop.states(job_id))
    workshop.resume(job_id)
    assert_ended_once(workshop, job_id)
    assert "running" in workshop.states(job_id)[before:]
