"""What is queued for a base model that is not served: it waits, knows why, and is not rung for."""

from datetime import timedelta

from services.scheduler.rering import Rering
from services.scheduler.unserved import COMPARISONS, JOBS, Unserved
from shared.clock import now
from shared.comparisons.state import State as ComparisonState
from shared.comparisons.transitions import move as move_comparison
from shared.db import transaction
from shared.jobs.claim import claim_next
from shared.jobs.state import State
from shared.jobs.transitions import move
from shared.task_queue import outstanding
from tests.services.worker.workshop import BASE

OTHER = "another-base"
PATIENCE = 30.0
LONG_AGO = now() - timedelta(minutes=5)


def unserved_duty(workshop, kind=JOBS):
    """A duty that has been at work for long."""
    clock = iter([0.0, *(PATIENCE + n for n in range(1, 20))])
    return Unserved(workshop.engine, lambda: [BASE], PATIENCE, kind, lambda: next(clock))


def told(workshop, job_id):
    events = workshop.events(job_id)
    return [event.message for event in events if (event.data or {}).get("reason")]


def test_the_owner_is_told_once_for_each_stay_in_the_queue(workshop):
    unserved, served = workshop.add_job(base_model=OTHER), workshop.add_job()
    duty = unserved_duty(workshop)
    for _ in range(3):
        duty.run()
    [message] = told(workshop, unserved)
    assert f"serves `{BASE}` now and not `{OTHER}`" in message
    assert told(workshop, served) == []
    with transaction(workshop.engine) as session:
        move(session, unserved, State.PAUSED, "paused")
        move(session, unserved, State.QUEUED, "goes on")
    for _ in range(2):
        duty.run()
    assert len(told(workshop, unserved)) == 2


def test_nobody_is_told_of_a_base_whose_process_has_been_away_for_a_moment_only(workshop):
    job_id = workshop.add_job()
    bases, times = [BASE], iter([0.0, 100.0, 100.0 + PATIENCE, 101.0 + PATIENCE])
    duty = Unserved(workshop.engine, lambda: bases, PATIENCE, clock=lambda: next(times))
    duty.run()
    bases = []
    duty.run()
    assert told(workshop, job_id) == []
    duty.run()
    [message] = told(workshop, job_id)
    assert "serves no base model now" in message


def test_the_owner_of_a_comparison_is_told_too(workshop, comparisons):
    unserved, served = comparisons.add(base_model=OTHER), comparisons.add()
    follows = comparisons.add(ComparisonState.WAITING, base_model=OTHER)
    duty = unserved_duty(workshop, COMPARISONS)
    for _ in range(3):
        duty.run()
    (event,) = comparisons.events(unserved)
    assert event.data == {"reason": "base_not_served"}
    assert f"The comparison waits: this installation serves `{BASE}`" in event.message
    assert comparisons.events(served) == comparisons.events(follows) == []
    with transaction(workshop.engine) as session:
        move_comparison(session, follows, ComparisonState.QUEUED, "The job has succeeded")
    duty.run()
    assert [event.state for event in comparisons.events(follows)] == ["queued", None]


def test_nobody_is_rung_for_a_job_that_nobody_may_claim(workshop):
    workshop.add_job(base_model=OTHER, state_changed_at=LONG_AGO)
    Rering(workshop.engine, workshop.app, 10, lambda: [BASE]).run()
    assert outstanding(workshop.app, "default").waiting == 0
    Rering(workshop.engine, workshop.app, 10, lambda: [BASE, OTHER]).run()
    assert outstanding(workshop.app, "default").waiting == 1


def test_a_claim_names_the_bases_it_may_take(workshop):
    unserved = workshop.add_job(base_model=OTHER, priority=9)
    served = workshop.add_job()
    with transaction(workshop.engine) as session:
        assert (job := claim_next(session, "default", "me", bases=[BASE]))
        assert job.id == served
        assert claim_next(session, "default", "me", bases=[BASE]) is None
        assert (job := claim_next(session, "default", "me"))
        assert job.id == unserved
