"""Places in the queue, by the claim's own rule."""

from shared.db import transaction
from shared.jobs.claim import claim_next
from shared.jobs.queue_order import Waiting, places, read_places
from shared.jobs.usage import RUNNING_SECONDS


def waiting(tenant: str, *numbers: int) -> list[Waiting]:
    return [Waiting(f"{tenant}{n}", tenant, (0, n)) for n in numbers]


def test_tenants_of_equal_usage_take_turns():
    found = places([*waiting("a", 1, 2, 3), *waiting("b", 4)], {})
    assert found == {"a1": 1, "b4": 2, "a2": 3, "a3": 4}


def test_who_has_trained_much_waits_until_the_others_have():
    jobs = [*waiting("a", 1), *waiting("b", 2, 3, 4)]
    assert places(jobs, {"a": 1.5 * RUNNING_SECONDS})["a1"] == 3
    assert places(jobs, {"a": 1e6})["a1"] == 4


def test_nobody_waits_is_no_place():
    assert places([], {}) == {}


def test_jobs_are_claimed_in_the_order_of_their_places(engine, add_job, add_tenant):
    one, other = add_tenant(), add_tenant()
    for owner in (one, one, one, other, other):
        add_job(owner)
    with transaction(engine) as session:
        found = read_places(session)
    claimed = []
    while True:
        with transaction(engine) as session:
            job = claim_next(session, "default", owner="test")
            if job is None:
                break
            claimed.append(job.id)
    assert claimed == sorted(found, key=lambda job_id: found[job_id])
    assert sorted(found.values()) == [1, 2, 3, 4, 5]
