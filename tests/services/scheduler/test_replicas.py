"""Inference processes that fall silent, and deleted adapters that wait for every one of them."""

import itertools
from functools import partial

import pytest

from services.scheduler.reap import LeaseWatch
from services.scheduler.replicas import ReapReplicas
from shared.db import transaction
from shared.replicas import registry
from shared.replicas.registry import Beat
from tests.conftest import wait_until
from tests.replicas import add_replica
from tests.services.scheduler.test_duties import LONG_AGO, add_adapter, erase_adapters
from tests.services.worker.inference_server import InferenceServer


@pytest.fixture
def second(workshop):
    """Another inference process of the same base."""
    server = InferenceServer()
    add_replica(workshop.engine, server.url)
    yield server
    server.close()


def registered(workshop):
    with transaction(workshop.engine) as session:
        return set(registry.urls(session))


def reap(workshop, times=3):
    """Scan so often, 20 s apart, with a window of 30 s."""
    clock = map(float, itertools.count(0, 10))
    watch = LeaseWatch[Beat](window_seconds=30, gap_seconds=100)
    duty = ReapReplicas(workshop.engine, watch, lambda: next(clock))
    for _ in range(times):
        duty.run()
        (seen,) = [beat for beat in beats(workshop) if beat.id == workshop.replica.id]
        wait_until(partial(moved, workshop, seen), "the first gives another sign")


def moved(workshop, seen):
    return seen not in beats(workshop)


def beats(workshop):
    with transaction(workshop.engine) as session:
        return registry.beats(session)


def test_the_silent_one_is_given_up_on_and_the_other_is_not(workshop, second):
    assert registered(workshop) == {workshop.inference.url, second.url}
    reap(workshop)
    assert registered(workshop) == {workshop.inference.url}


def test_files_of_a_deleted_adapter_wait_for_every_process_that_may_hold_it(workshop, second):
    deleted = add_adapter(workshop, deleted_at=LONG_AGO)
    second.status = 503
    erase_adapters(workshop).run()
    assert workshop.store.adapter(deleted).exists()
    reap(workshop)  # it is gone for good
    erase_adapters(workshop).run()
    assert not workshop.store.adapter(deleted).exists()
    # One that comes back late asks before it loads.
    add_replica(workshop.engine, second.url)
    with transaction(workshop.engine) as session:
        assert not registry.may_load(session, second.url, deleted)


def test_every_process_is_asked_to_let_go(workshop, second):
    deleted = add_adapter(workshop, deleted_at=LONG_AGO)
    erase_adapters(workshop).run()
    assert workshop.inference.evicted == second.evicted == [deleted]
