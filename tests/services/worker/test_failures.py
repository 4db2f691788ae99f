"""The table of failures: what each end of an attempt means, and what follows in the row."""

from signal import SIGKILL, SIGSEGV

import pytest

from services.worker.endings import give_away
from services.worker.failures import (
    REACTIONS,
    AttemptFailed,
    BackOff,
    Cause,
    publishing_seconds,
    react,
)
from services.worker.lease import Order
from services.worker.trainer import Exited
from shared.db import transaction
from shared.errors import LeaseLost
from shared.jobs.lease import FRUITLESS_LIMIT
from shared.jobs.state import State
from shared.jobs.transitions import move

TRAINED = {
    Cause.SERVED_DIFFERS,
    Cause.ADAPTER_REFUSED,
    Cause.INFERENCE_AWAY,
    Cause.BASE_NOT_SERVED,
}
"""What can happen only to a job that is trained."""
NO_JITTER = BackOff((10, 60, 300), lambda low, high: (low + high) / 2)


def test_every_cause_has_its_reaction():
    assert set(REACTIONS) == set(Cause)


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (Exited(-SIGKILL, oom_killed=False), Cause.KILLED),
        (Exited(-SIGKILL, oom_killed=True), Cause.OUT_OF_MEMORY),
        (Exited(-SIGSEGV, oom_killed=True), Cause.CRASH),
        (Exited(1, oom_killed=False), Cause.CRASH),
        (Exited(0, oom_killed=False), Cause.CRASH),
    ],
)
def test_an_end_without_a_word_is_told_by_signal_and_the_kernels_counter(end, cause):
    assert AttemptFailed.of_exit(end).cause == cause


def test_the_waiting_time_grows_and_strays_by_a_fifth():
    assert [NO_JITTER.delay(crashes) for crashes in (1, 2, 3, 4)] == [10, 60, 300, 300]
    assert BackOff((10,), min).delay(1) == pytest.approx(8)
    assert BackOff((10,), max).delay(1) == pytest.approx(12)


@pytest.fixture
def outcome(workshop):
    """Let an attempt of a running job fail; return the job afterwards."""

    def fail(cause, *, back_off=NO_JITTER, **columns):
        job_id = workshop.add_job(state=State.RUNNING, attempt=1, **columns)
        with transaction(workshop.engine) as session:
            if cause in TRAINED:
                move(session, job_id, State.PUBLISHING, "Publishing the model")
            react(session, workshop.job(job_id), AttemptFailed(cause, "why"), back_off)
        return workshop.job(job_id)

    return fail


@pytest.mark.parametrize(
    "cause",
    [
        Cause.BAD_DATA,
        Cause.BAD_CONFIGURATION,
        Cause.NON_FINITE_LOSS,
        Cause.INVALID_ADAPTER,
    ],
)
def test_what_cannot_get_better_fails_at_once(outcome, cause):
    job = outcome(cause)
    assert (job.state, job.error["message"]) == (State.FAILED, "why")


@pytest.mark.parametrize("cause", [Cause.SERVED_DIFFERS, Cause.ADAPTER_REFUSED])
def test_what_is_trained_and_cannot_be_served_is_paused_and_says_how_to_go_on(outcome, cause):
    job = outcome(cause)
    assert (job.state, job.error["code"], job.lease_owner) == (State.PAUSED, cause.value, None)
    assert f"/v1/fine_tuning/jobs/{job.id}/resume" in job.error["message"]


@pytest.mark.parametrize("cause", [Cause.INFERENCE_AWAY, Cause.BASE_NOT_SERVED])
def test_publishing_is_given_up_only_after_its_time(outcome, cause):
    patient, tired = (BackOff((10,), min, seconds) for seconds in (3600, 1e-6))
    assert outcome(cause, back_off=patient).state == State.QUEUED
    job = outcome(cause, back_off=tired)
    assert (job.state, job.error["code"]) == (State.PAUSED, cause.value)


def test_the_time_for_publishing_counts_over_all_attempts_and_anew_after_a_pause(workshop):
    job_id = workshop.add_job(state=State.RUNNING, attempt=1)
    steps = [State.PUBLISHING, State.QUEUED, State.STARTING, State.PUBLISHING]
    waited = []
    for state in [*steps, State.PAUSED, State.QUEUED, State.STARTING, State.PUBLISHING]:
        with transaction(workshop.engine) as session:
            move(session, job_id, state, "x")
        if state == State.PUBLISHING:
            with transaction(workshop.engine) as session:
                waited.append(publishing_seconds(session, workshop.job(job_id)))
    first, second, after_the_pause = waited
    assert 0 < first < second
    assert after_the_pause < second


def test_a_kill_from_outside_counts_nothing(outcome):
    job = outcome(Cause.KILLED, crashes=2)
    assert (job.state, job.not_before, job.crashes) == (State.QUEUED, None, 2)


def test_a_crash_backs_off_by_the_number_of_crashes(outcome):
    for crashes, wait in ((0, 10), (1, 60)):
        job = outcome(Cause.CRASH, crashes=crashes)
        assert (job.state, job.crashes) == (State.QUEUED, crashes + 1)
        assert (job.not_before - job.state_changed_at).total_seconds() == pytest.approx(wait, abs=1)


def test_the_third_crash_without_progress_poisons(outcome):
    job = outcome(Cause.CRASH, crashes=2)
    assert (job.state, job.error["code"]) == (State.FAILED, "poisoned")


def test_memory_is_halved_twice(outcome, workshop):
    job = outcome(Cause.OUT_OF_MEMORY)
    assert (job.state, job.micro_batch_divisor) == (State.QUEUED, 2)
    job = outcome(Cause.OUT_OF_MEMORY, micro_batch_divisor=2)
    assert (job.state, job.micro_batch_divisor) == (State.QUEUED, 4)
    assert "computing again" in workshop.events(job.id)[-1].message
    job = outcome(Cause.OUT_OF_MEMORY, micro_batch_divisor=4)
    assert (job.state, job.error["code"]) == (State.FAILED, "out_of_memory")


def test_a_full_disk_makes_the_job_wait_and_says_so(outcome, workshop):
    job = outcome(Cause.DISK_FULL, fruitless_attempts=FRUITLESS_LIMIT, progress={"step": 4})
    assert (job.state, job.crashes, job.fruitless_attempts) == (
        State.QUEUED,
        0,
        FRUITLESS_LIMIT - 1,
    )
    assert job.not_before is not None
    assert job.progress == {"step": 4, "waiting": "why"}
    assert workshop.events(job.id)[-1].message == "why"


@pytest.mark.parametrize("counted", [0, 1, FRUITLESS_LIMIT])
def test_an_inference_service_that_stays_away_costs_only_time(outcome, counted):
    job = outcome(Cause.INFERENCE_AWAY, fruitless_attempts=counted)
    assert (job.state, job.crashes) == (State.QUEUED, 0)
    assert job.fruitless_attempts == max(0, counted - 1)
    assert job.not_before is not None


def test_a_drain_gives_the_attempt_back_also_before_the_first_step(workshop):
    job_id = workshop.add_job(state=State.STARTING, attempt=10, fruitless_attempts=10)
    with transaction(workshop.engine) as session:
        give_away(session, workshop.job(job_id), Order.DRAIN)
    job = workshop.job(job_id)
    assert (job.state, job.not_before, job.fruitless_attempts) == (State.QUEUED, None, 9)


def test_an_attempt_that_has_been_replaced_changes_nothing(workshop):
    job_id = workshop.add_job(state=State.RUNNING, attempt=2)
    stale = workshop.job(job_id)
    stale.attempt = 1
    with pytest.raises(LeaseLost), transaction(workshop.engine) as session:
        react(session, stale, AttemptFailed(Cause.BAD_DATA, "why"), NO_JITTER)
    assert workshop.job(job_id).state == State.RUNNING
