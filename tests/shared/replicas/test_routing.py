"""Where requests go: to who has the adapter, evenly, and elsewhere when one dies."""

from collections import Counter

import pytest

from shared.replicas.routing import COOLING_SECONDS, FAILED_SECONDS, Replica, Router

SLOTS = 16
ADAPTERS = [f"ad_{number}" for number in range(600)]


def replicas(count, slots=SLOTS):
    return [Replica(f"rep_{n}", f"http://{n}", places=4, slots=slots) for n in range(count)]


def first(router, adapter, among, now=0.0):
    return router.order(adapter, among, now)[0]


def send(router, adapter, among, times=1, now=0.0):
    """Send requests that do not end; return who got how many."""
    got: Counter[str] = Counter()
    for _ in range(times):
        replica = first(router, adapter, among, now)
        router.began(replica.id, adapter, now)
        got[replica.id] += 1
    return got


def test_everybody_is_in_the_order_once_and_all_gateways_agree():
    among = replicas(5)
    for adapter in (None, *ADAPTERS[:20]):
        order = Router().order(adapter, among, 0)
        assert sorted(each.id for each in order) == [each.id for each in among]
        assert order == Router().order(adapter, among[::-1], 7)
    assert Router().order("ad_1", [], 0) == []


def test_adapters_are_spread_evenly():
    homes = Counter(first(Router(), adapter, replicas(3)).id for adapter in ADAPTERS)
    assert all(150 < count < 250 for count in homes.values()), homes


def test_one_that_dies_moves_only_its_own_adapters_and_not_all_to_one():
    among = replicas(4)
    dead = among[1]
    left = [each for each in among if each != dead]
    heirs: Counter[str] = Counter()
    for adapter in ADAPTERS:
        before, after = first(Router(), adapter, among), first(Router(), adapter, left)
        if before == dead:
            heirs[after.id] += 1
        else:
            assert after == before
    assert all(20 < heirs[each.id] < 90 for each in left), heirs


def test_a_few_requests_of_one_adapter_stay_where_it_is():
    assert len(send(Router(), "ad_1", replicas(4), times=SLOTS // 4)) == 1


def test_a_popular_adapter_is_given_more_processes_and_none_of_them_much_more_than_the_others():
    got = send(Router(), "ad_1", replicas(4), times=3 * SLOTS)
    assert max(got.values()) <= 1.25 * 3 * SLOTS / 4 + 1, got


def test_other_adapters_make_room_where_one_is_popular():
    router, among = Router(), replicas(2)
    for adapter in ADAPTERS[:200]:
        send(router, adapter, among)
    loads = router._of_replica
    assert max(loads.values()) <= 1.25 * 100 + 1, loads


@pytest.mark.parametrize(("after", "width"), [(COOLING_SECONDS - 1, 3), (COOLING_SECONDS, 1)])
def test_it_leaves_a_process_only_when_its_demand_has_been_lower_for_long(after, width):
    router, among = Router(), replicas(4)
    sent = []
    for _ in range(2 * SLOTS // 4 + 1):
        replica = first(router, "ad_1", among)
        router.began(replica.id, "ad_1", 0)
        sent.append(replica.id)
    for replica_id in sent:
        router.ended(replica_id, "ad_1", 0)
    got = set()
    for _ in range(3):
        replica = first(router, "ad_1", among, after)
        router.began(replica.id, "ad_1", after)
        got.add(replica.id)
    assert len(got) == width


def test_the_base_itself_is_asked_where_least_is_going_on():
    got = send(Router(), None, replicas(3), times=30)
    assert set(got.values()) == {10}


def test_the_larger_one_is_given_more():
    among = [*replicas(1), Replica("large", "http://l", places=4, slots=3 * SLOTS)]
    got = send(Router(), None, among, times=40)
    assert got["large"] == 30


def test_who_did_not_answer_is_asked_last_for_a_while():
    router, among = Router(), replicas(3)
    home = first(router, "ad_1", among)
    router.failed(home.id, 0)
    assert router.order("ad_1", among, FAILED_SECONDS - 0.1)[-1] == home
    assert first(router, "ad_1", among, FAILED_SECONDS) == home


def test_what_is_over_is_forgotten():
    router, among = Router(), replicas(2)
    for adapter in ADAPTERS:
        for _ in range(SLOTS // 4 + 1):
            router.began("rep_0", adapter, 0)
        router.order(adapter, among, 0)
        for _ in range(SLOTS // 4 + 1):
            router.ended("rep_0", adapter, 0)
    router.failed("rep_0", 0)
    router.began("rep_0", None, COOLING_SECONDS)
    router.ended("rep_0", None, COOLING_SECONDS)
    kept = [router._of_replica, router._of_adapter, router._spreads, router._failed_at]
    assert not any(kept), kept
