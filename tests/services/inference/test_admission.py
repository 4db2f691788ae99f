"""The admission policy, by tables, by generated storms and by the clock."""

import sys
import time
from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.admission import Admission, Ticket

SLICE = 2.0


def admission(slots: int = 8, places: int = 4, share: float = 0.5) -> Admission:
    return Admission(slots, places, share, SLICE)


def tenants(tickets: list[Ticket]) -> str:
    return "".join(ticket.tenant for ticket in tickets)


def adapters(tickets: list[Ticket]) -> str:
    return "".join(str(ticket.adapter) for ticket in tickets)


@pytest.mark.parametrize(("share", "admitted"), [(0.25, 2), (0.5, 4), (0.75, 6), (0.875, 7)])
def test_a_tenant_that_is_alone_gets_its_share_at_once_and_no_more(
    share: float, admitted: int
) -> None:
    door = admission(share=share)
    for _ in range(20):
        door.arrive("a")
    assert len(door.admit(now=0)) == admitted


def test_a_newcomer_is_let_in_at_once_however_many_of_another_wait() -> None:
    door = admission()
    for _ in range(1000):
        door.arrive("a")
    door.admit(now=0)
    door.arrive("b")
    assert tenants(door.admit(now=1)) == "b"


def test_freed_slots_go_to_the_tenant_that_holds_least() -> None:
    door = admission(slots=6, share=0.75)
    for tenant in "aaaaaa":
        door.arrive(tenant)
    first = door.admit(now=0)
    for tenant in "bbb":
        door.arrive(tenant)
    door.admit(now=1)
    door.leave(first[0], now=2)
    assert tenants(door.admit(now=2)) == "b"


def test_among_tenants_that_hold_the_same_the_one_served_least_is_next() -> None:
    door = admission(slots=1, share=0.5)
    for tenant in "aabb":
        door.arrive(tenant)
    order = ""
    for now in range(4):
        (ticket,) = door.admit(now)
        order += ticket.tenant
        door.leave(ticket, now + 1)
    assert order == "abab"


def test_a_newcomer_does_not_catch_up_on_the_time_it_was_away() -> None:
    door = admission(slots=1, share=0.5)
    for _ in range(10):
        door.arrive("a")
    now = 0.0
    for _ in range(4):
        (ticket,) = door.admit(now)
        door.leave(ticket, now := now + 1)
    for _ in range(4):
        door.arrive("b")
    order = ""
    for _ in range(4):
        (ticket,) = door.admit(now)
        order += ticket.tenant
        door.leave(ticket, now := now + 1)
    assert order == "abab"


def test_a_wide_request_waits_for_its_slots_and_is_not_overtaken_by_narrow_ones() -> None:
    door = admission()
    for _ in range(10):
        door.arrive("a")
    running = deque(door.admit(now=0))
    door.arrive("b", slots=8)
    while running:
        assert door.admit(now=1) == []
        door.leave(running.popleft(), now=1)
    assert tenants(door.admit(now=2)) == "b"


def test_a_request_wider_than_the_engine_runs_alone() -> None:
    door = admission()
    door.arrive("a", slots=128)
    (ticket,) = door.admit(now=0)
    assert ticket.slots == 8


def test_a_tenant_with_many_adapters_leaves_places_for_others() -> None:
    door = admission(slots=64)
    for adapter in "wxyz":
        door.arrive("a", adapter)
    assert adapters(door.admit(now=0)) == "wx"
    door.arrive("b", "m")
    door.arrive("c", "n")
    assert adapters(door.admit(now=0)) == "mn"


def test_the_base_model_needs_no_place() -> None:
    door = admission(places=1)
    door.arrive("a", "x")
    door.admit(now=0)
    door.arrive("b")
    assert tenants(door.admit(now=0)) == "b"


def test_a_busy_adapter_is_closed_after_its_slice_while_another_tenant_waits() -> None:
    door = admission(places=1)
    door.arrive("a", "x")
    door.admit(now=0)
    door.arrive("b", "y")
    door.arrive("a", "x")
    assert adapters(door.admit(now=SLICE - 0.1)) == "x"
    door.arrive("a", "x")
    assert adapters(door.admit(now=SLICE)) == ""


def test_a_tenants_own_adapters_take_turns() -> None:
    door = admission(places=1)
    first = door.arrive("a", "x")
    door.admit(now=0)
    door.arrive("a", "y")
    door.arrive("a", "x")
    assert door.admit(now=SLICE) == []
    door.leave(first, now=SLICE)
    assert adapters(door.admit(now=SLICE)) == "y"


def test_somebody_who_gives_up_waiting_closes_nobody() -> None:
    door = admission(places=1)
    door.arrive("a", "x")
    door.admit(now=0)
    impatient = door.arrive("b", "y")
    door.leave(impatient, now=1)
    door.arrive("a", "x")
    assert adapters(door.admit(now=SLICE)) == "x"


def test_the_adapter_loaded_beforehand_is_that_of_the_tenant_that_is_next() -> None:
    door = admission(places=1)
    door.arrive("a", "x")
    door.admit(now=0)
    door.arrive("a", "y")
    door.arrive("b", "z")
    assert door.next_adapter() == "z"


class Engine:
    """Runs what is admitted, each request for as long as it was drawn, and looks on."""

    def __init__(self, door: Admission, slots: int, places: int) -> None:
        self.door, self.slots, self.places = door, slots, places
        self.now = 0.0
        self.due: dict[Ticket, float] = {}
        self.seconds: dict[Ticket, float] = {}
        self.arrived: dict[Ticket, float] = {}
        self.waited: dict[Ticket, float] = {}

    def arrive(self, tenant: str, adapter: str | None, slots: int, seconds: float) -> None:
        ticket = self.door.arrive(tenant, adapter, slots)
        self.seconds[ticket], self.arrived[ticket] = seconds, self.now
        self.admit()

    def admit(self) -> None:
        for ticket in self.door.admit(self.now):
            self.waited[ticket] = self.now - self.arrived[ticket]
            self.due[ticket] = self.now + self.seconds[ticket]
        held = Counter[str]()
        for ticket in self.due:
            held[ticket.tenant] += ticket.slots
        assert sum(held.values()) <= self.slots
        assert len({t.adapter for t in self.due} - {None}) <= self.places
        assert all(self.door.held(tenant) == held[tenant] for tenant in "abcd")
        waiting = set(self.arrived) - set(self.waited)
        assert self.due or not waiting, "an idle engine lets nobody wait"

    def pass_until(self, until: float) -> None:
        while self.due and (end := min(self.due.values())) <= until:
            self.now = end
            for ticket in [t for t, due in self.due.items() if due <= end]:
                del self.due[ticket]
                self.door.leave(ticket, end)
            self.admit()
        self.now = max(self.now, until) if until != float("inf") else self.now


requests = st.tuples(
    st.sampled_from("aaaabcd"),
    st.sampled_from([None, None, "1", "2", "3"]),
    st.integers(1, 9),
    st.floats(0.1, 3),
    st.floats(0, 0.5),
)


@given(
    st.lists(requests, max_size=60),
    st.integers(1, 12),
    st.integers(1, 4),
    st.sampled_from([0.25, 0.5, 0.9]),
)
def test_in_any_storm_the_bounds_hold_and_everybody_is_served(
    storm: list[tuple[str, str | None, int, float, float]], slots: int, places: int, share: float
) -> None:
    engine = Engine(admission(slots, places, share), slots, places)
    for tenant, adapter, width, seconds, pause in storm:
        engine.arrive(tenant, adapter and tenant + adapter, width, seconds)
        engine.pass_until(engine.now + pause)
    engine.pass_until(float("inf"))
    assert len(engine.waited) == len(storm)
    assert all(not engine.door.present(tenant) for tenant in "abcd")


@given(st.integers(1, 40), st.lists(st.floats(0.1, 3), min_size=150, max_size=150))
def test_a_flood_delays_another_tenant_by_no_more_than_what_runs(
    arrival: int, seconds: list[float]
) -> None:
    engine = Engine(admission(), slots=8, places=4)
    for number, length in enumerate(seconds):
        engine.arrive("a", f"a{number % 4}", 1, length)
    engine.pass_until(float(arrival))
    engine.arrive("b", "b", 1, 1.0)
    (ticket,) = [ticket for ticket in engine.arrived if ticket.tenant == "b"]
    assert engine.waited[ticket] == 0


@pytest.mark.skipif(sys.gettrace() is not None, reason="counting branches takes time of its own")
@pytest.mark.parametrize("number_of_tenants", [1, 20])
def test_ten_thousand_requests_cost_about_a_second(number_of_tenants: int) -> None:
    door = admission(slots=64)
    began = time.process_time()
    running = deque[Ticket]()
    for number in range(10_000):
        tenant = f"t{number % number_of_tenants}"
        door.arrive(tenant, f"{tenant}-{number % 5}" if number % 5 else None)
        running += door.admit(now=0)
    served = 0
    while running:
        door.leave(running.popleft(), now=(served := served + 1) / 100)
        running += door.admit(now=served / 100)
    assert served == 10_000
    assert time.process_time() - began < 2
