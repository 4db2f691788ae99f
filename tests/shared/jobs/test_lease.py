"""Renewing, losing and giving back a lease."""

import pytest

from shared.db import transaction
from shared.errors import LeaseLost
from shared.jobs.lease import FRUITLESS_LIMIT, HeldLease, expire, held_leases, renew, requeue
from shared.jobs.state import LEASED, State


@pytest.mark.parametrize("state", sorted(LEASED))
def test_a_heartbeat_moves_the_lease_of_its_own_attempt_only(engine, add_job, job_row, state):
    job_id = add_job(state=state, attempt=3)
    with transaction(engine) as session:
        assert renew(session, job_id, 3) == state
        assert renew(session, job_id, 2) is None
        assert renew(session, job_id, 4) is None
    assert job_row(job_id).lease_seq == 1


@pytest.mark.parametrize("state", sorted(set(State) - LEASED))
def test_nobody_renews_a_job_that_no_worker_holds(engine, add_job, state):
    job_id = add_job(state=state, attempt=1)
    with transaction(engine) as session:
        assert renew(session, job_id, 1) is None


def test_passing_the_highest_step_forgives_what_was_before(engine, add_job, job_row):
    job_id = add_job(
        state=State.RUNNING, attempt=4, highest_step=50, crashes=2, fruitless_attempts=3
    )
    with transaction(engine) as session:
        renew(session, job_id, 4, {"step": 50})
    job = job_row(job_id)
    assert (job.highest_step, job.crashes, job.fruitless_attempts) == (50, 2, 3)
    with transaction(engine) as session:
        renew(session, job_id, 4, {"step": 51})
    job = job_row(job_id)
    assert (job.highest_step, job.crashes, job.fruitless_attempts) == (51, 0, 0)


@pytest.mark.parametrize(
    ("held", "after"),
    [
        (State.STARTING, State.QUEUED),
        (State.RUNNING, State.QUEUED),
        (State.PUBLISHING, State.QUEUED),
        (State.CANCELLING, State.CANCELLED),
        (State.PAUSING, State.PAUSED),
    ],
)
def test_a_lost_lease_leads_where_the_protocol_says(engine, add_job, job_row, held, after):
    job_id = add_job(state=held, attempt=1)
    with transaction(engine) as session:
        [lease] = held_leases(session)
        assert expire(session, lease) == after
    assert job_row(job_id).state == after


def test_a_lease_that_moved_after_the_scan_is_not_expired(engine, add_job, job_row):
    job_id = add_job(state=State.RUNNING, attempt=1, lease_seq=7)
    with transaction(engine) as session:
        assert expire(session, HeldLease(job_id, 1, 6)) is None
        assert expire(session, HeldLease(job_id, 2, 7)) is None
    assert job_row(job_id).state == State.RUNNING


def test_too_many_fruitless_attempts_of_any_kind_are_the_end(engine, add_job, job_row):
    job_id = add_job(state=State.RUNNING, attempt=10, fruitless_attempts=FRUITLESS_LIMIT)
    with transaction(engine) as session:
        [lease] = held_leases(session)
        assert expire(session, lease) == State.FAILED
    assert job_row(job_id).error["code"] == "poisoned"


def test_ten_ordinary_restarts_before_the_first_checkpoint_leave_a_job_alive(
    engine, add_job, job_row
):
    job_id = add_job(state=State.RUNNING, attempt=11, fruitless_attempts=11)
    with transaction(engine) as session:
        [lease] = held_leases(session)
        assert expire(session, lease) == State.QUEUED
    job = job_row(job_id)
    assert job.not_before > job.state_changed_at  # others go first: it may end its workers


def test_only_the_attempt_that_holds_a_job_can_give_it_back(engine, add_job, job_row):
    job_id = add_job(state=State.RUNNING, attempt=2)
    stale = job_row(job_id)
    stale.attempt = 1
    with pytest.raises(LeaseLost), transaction(engine) as session:
        requeue(session, stale, "too late")
    assert job_row(job_id).state == State.RUNNING
