"""Comparisons: whose turn it is, what follows a job's end, and what a lost comparer leads to."""

from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, Counter

from services.scheduler.comparisons import Follow, RingForComparisons
from services.scheduler.reap import COMPARISONS, LeaseWatch, Reap
from shared.clock import now
from shared.comparisons.lease import FRUITLESS_LIMIT, RESTLESS_ATTEMPTS, held_leases, renew, requeue
from shared.comparisons.models import Comparison
from shared.comparisons.state import SOURCES, TERMINAL, State
from shared.comparisons.transitions import move
from shared.db import transaction
from shared.errors import LeaseLost
from shared.jobs.lease import HeldLease
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State as JobState
from shared.task_queue import COMPARE, outstanding
from tests.services.worker.workshop import BASE

LONG_AGO = now() - timedelta(minutes=5)


def test_every_state_but_the_ended_ones_can_be_left_and_those_cannot():
    left = {source for sources in SOURCES.values() for source in sources}
    assert left == set(State) - TERMINAL


def test_a_tenant_with_many_waits_for_one_with_none_running(comparisons):
    other = comparisons.another_tenant()
    mine = [comparisons.add() for _ in range(3)]
    theirs = comparisons.add(tenant_id=other)
    assert comparisons.claim() == mine[0]
    assert comparisons.claim() == theirs
    with transaction(comparisons.engine) as session:
        for each in (mine[0], theirs):
            move(session, each, State.SUCCEEDED, "done")
    last = comparisons.add(tenant_id=other)
    assert [comparisons.claim() for _ in range(4)] == [mine[1], last, mine[2], None]


def test_what_waits_rests_or_is_not_served_is_not_claimed(comparisons):
    comparisons.add(State.WAITING, job_id=comparisons.job_id)
    comparisons.add(base_model="another")
    comparisons.add(not_before=now() + timedelta(minutes=1))
    comparisons.add(deleted_at=now())
    assert comparisons.claim() is None


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (JobState.SUCCEEDED, State.QUEUED),
        (JobState.FAILED, State.FAILED),
        (JobState.CANCELLED, State.FAILED),
        (JobState.RUNNING, State.WAITING),
    ],
)
def test_a_waiting_one_follows_its_job(comparisons, end, state):
    waiting = comparisons.add(State.WAITING, job_id=comparisons.job_id)
    with transaction(comparisons.engine) as session:
        session.get_one(FineTuningJob, comparisons.job_id).state = end
    for _ in range(2):
        Follow(comparisons.engine).run()
    assert comparisons.get(waiting).state == state


def test_it_rings_for_overdue_comparisons_and_not_again_while_the_rings_wait(workshop, comparisons):
    comparisons.add(state_changed_at=LONG_AGO)
    comparisons.add()
    duty = RingForComparisons(workshop.engine, workshop.app, 10, lambda: [BASE])
    for _ in range(2):
        duty.run()
    assert outstanding(workshop.app, COMPARE).waiting == 1
    assert outstanding(workshop.app, "default").waiting == 0


def reap(comparisons, *, seconds):
    clock = iter(range(0, 1000, seconds))
    expired = Counter("x", "x", registry=CollectorRegistry())
    watch = LeaseWatch[HeldLease](window_seconds=30, gap_seconds=100)
    duty = Reap(comparisons.engine, watch, lambda: next(clock), expired, COMPARISONS)
    for _ in range(3):
        duty.run()


def test_a_lost_comparer_gives_its_comparison_back_and_a_cancelled_one_ends(comparisons):
    lost, cancelled = comparisons.add(), comparisons.add()
    assert {comparisons.claim(), comparisons.claim()} == {lost, cancelled}
    with transaction(comparisons.engine) as session:
        move(session, cancelled, State.CANCELLING, "cancel")
    reap(comparisons, seconds=20)
    assert comparisons.get(lost).state == State.QUEUED
    assert comparisons.get(cancelled).state == State.CANCELLED


def test_the_holder_before_writes_nothing_any_more(comparisons):
    lost = comparisons.add()
    comparisons.claim()
    reap(comparisons, seconds=20)
    assert comparisons.claim() == lost
    with transaction(comparisons.engine) as session:
        assert renew(session, lost, 1, {"asked": 9}) is None
        assert renew(session, lost, 2, {"asked": 9}) == State.RUNNING
    with pytest.raises(LeaseLost), transaction(comparisons.engine) as session:
        move(session, lost, State.SUCCEEDED, "done", attempt=1)
    assert [lease.attempt for lease in held_leases_of(comparisons)] == [2]


def held_leases_of(comparisons):
    with transaction(comparisons.engine) as session:
        return held_leases(session)


def test_attempts_that_answer_nothing_rest_and_are_given_up_and_answers_forgive_them(comparisons):
    comparison_id = comparisons.add()
    for attempt in range(1, FRUITLESS_LIMIT + 1):
        with transaction(comparisons.engine) as session:
            session.get_one(Comparison, comparison_id).not_before = None
        assert comparisons.claim() == comparison_id
        with transaction(comparisons.engine) as session:
            row = session.get_one(Comparison, comparison_id)
            assert row.fruitless_attempts == attempt
            row = requeue(session, row, "lost")
            assert (row.not_before is not None) == (RESTLESS_ATTEMPTS <= attempt < FRUITLESS_LIMIT)
    row = comparisons.get(comparison_id)
    assert row.error is not None
    assert (row.state, row.error["code"]) == (State.FAILED, "poisoned")
    again = comparisons.add(fruitless_attempts=7)
    comparisons.claim()
    with transaction(comparisons.engine) as session:
        renew(session, again, 1, {"asked": 1})
    assert comparisons.get(again).fruitless_attempts == 0
