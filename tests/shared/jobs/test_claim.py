"""Which job a ring gets."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy import update

from shared.clock import now
from shared.db import transaction
from shared.db.tables import FineTuningJob, Tenant
from shared.jobs.claim import claim_next
from shared.jobs.lease import renew
from shared.jobs.state import State
from shared.jobs.transitions import move
from shared.jobs.usage import HALF_LIFE, RUNNING_SECONDS
from tests.conftest import wait_until


def claim(engine, queue="default", bases=None):
    with transaction(engine) as session:
        job = claim_next(session, queue, owner="test", bases=bases)
        return job.id if job else None


def train_for(engine, job_id, seconds):
    """What a worker does to the row of a claimed job that it trains to its end."""
    with transaction(engine) as session:
        job = session.get_one(FineTuningJob, job_id)
        assert job.lease_charged_at
        job.lease_charged_at -= timedelta(seconds=seconds)
        session.flush()
        assert renew(session, job_id, job.attempt)
        for state in (State.RUNNING, State.PUBLISHING, State.SUCCEEDED):
            move(session, job_id, state, "…", attempt=job.attempt)


def used(engine, tenant, seconds, ago=timedelta(0)):
    """Let ``tenant`` have trained for ``seconds`` some time ago."""
    with transaction(engine) as session:
        session.execute(
            update(Tenant)
            .where(Tenant.id == tenant)
            .values(trained_seconds=seconds, trained_seconds_at=now() - ago)
        )


def test_nothing_to_claim_is_no_error(engine):
    assert claim(engine) is None


def test_a_claim_opens_a_new_attempt_that_counts_as_fruitless_until_it_proves_otherwise(
    engine, add_job, job_row
):
    job_id = add_job()
    assert claim(engine) == job_id
    job = job_row(job_id)
    assert (job.state, job.attempt, job.fruitless_attempts) == (State.STARTING, 1, 1)
    assert job.lease_owner == "test"
    assert claim(engine) is None


def test_the_oldest_job_of_the_highest_priority_comes_first(engine, add_job, add_tenant):
    tenants = [add_tenant() for _ in range(3)]
    old = add_job(tenants[0], created_at=now() - timedelta(hours=1))
    new = add_job(tenants[1])
    urgent = add_job(tenants[2], priority=1)
    assert [claim(engine) for _ in range(3)] == [urgent, old, new]


def test_a_tenant_with_less_running_goes_before_priority_and_age(engine, add_job, add_tenant):
    busy, other = add_tenant(), add_tenant()
    add_job(busy, state=State.RUNNING)
    add_job(busy, priority=9, created_at=now() - timedelta(hours=1))
    theirs = add_job(other)
    assert claim(engine) == theirs


def test_a_job_that_backs_off_and_another_queue_are_left_alone(engine, add_job):
    add_job(not_before=now() + timedelta(minutes=1))
    elsewhere = add_job(queue="gpu")
    due = add_job(not_before=now() - timedelta(seconds=1))
    assert [claim(engine), claim(engine)] == [due, None]
    assert claim(engine, "gpu") == elsewhere


def test_a_job_that_is_cancelled_while_it_is_claimed_is_passed_over(
    engine, add_job, waiting_for_locks
):
    cancelled = add_job(created_at=now() - timedelta(hours=1))
    other = add_job()
    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as session:
            move(session, cancelled, State.CANCELLED, "The job has been cancelled")
            claimed = pool.submit(claim, engine)
            wait_until(lambda: waiting_for_locks() == 1, "the claim meets the cancel")
        assert claimed.result() == other


def test_claimers_at_the_same_time_never_get_the_same_job_and_keep_shares_fair(
    engine, add_job, add_tenant, job_row
):
    tenants = [add_tenant() for _ in range(4)]
    for tenant in tenants * 3:
        add_job(tenant)
    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(lambda _: claim(engine), range(8)))
    assert len(set(claimed)) == 8
    shares = [job_row(job_id).tenant_id for job_id in claimed]
    assert [shares.count(tenant) for tenant in tenants] == [2, 2, 2, 2]


def test_with_one_worker_a_flood_of_jobs_does_not_hold_up_another_tenants(
    engine, add_job, add_tenant
):
    flooding, other = add_tenant(), add_tenant()
    for _ in range(50):
        add_job(flooding, created_at=now() - timedelta(hours=1))
    train_for(engine, claim(engine), seconds=30)
    theirs = add_job(other)
    assert claim(engine) == theirs


def test_two_tenants_that_queue_all_day_get_the_same_time_not_the_same_number(
    engine, add_job, add_tenant, job_row
):
    seconds = {add_tenant(): 100, add_tenant(): 300}
    for tenant in list(seconds) * 12:
        add_job(tenant)
    got = dict.fromkeys(seconds, 0)
    for _ in range(12):
        job_id = claim(engine)
        tenant = job_row(job_id).tenant_id
        train_for(engine, job_id, seconds[tenant])
        got[tenant] += seconds[tenant]
    assert abs(got[next(iter(got))] - sum(got.values()) / 2) <= 300


def test_what_was_trained_long_ago_counts_little(engine, add_job, add_tenant):
    once_busy, lately = add_tenant(), add_tenant()
    used(engine, once_busy, 10_000, ago=12 * HALF_LIFE)
    used(engine, lately, 100)
    add_job(lately, created_at=now() - timedelta(hours=1))
    theirs = add_job(once_busy)
    assert claim(engine) == theirs


def test_a_job_that_runs_counts_before_its_first_heartbeat(engine, add_job, add_tenant):
    busy, other = add_tenant(), add_tenant()
    add_job(busy, state=State.RUNNING)
    used(engine, other, RUNNING_SECONDS / 2)
    add_job(busy, created_at=now() - timedelta(hours=1))
    theirs = add_job(other)
    assert claim(engine) == theirs


def test_a_worker_claims_only_jobs_of_the_bases_it_can_publish(engine, add_job):
    add_job(base_model="another", created_at=now() - timedelta(hours=1))
    served = add_job()
    bases = ["smollm2-135m-instruct"]
    assert [claim(engine, bases=bases), claim(engine, bases=bases)] == [served, None]
