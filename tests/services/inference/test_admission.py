"""The admission policy, by tables and by a random storm."""

import random

import pytest

from services.inference.admission import Admission, Ticket

SLICE = 2.0


def arrivals(door: Admission, adapters: str) -> list[Ticket]:
    return [door.arrive(adapter) for adapter in adapters]


def names(tickets: list[Ticket]) -> str:
    return "".join(ticket.adapter for ticket in tickets)


@pytest.mark.parametrize(
    ("queue", "admitted"),
    [
        ("", ""),
        ("a", "a"),
        ("aaa", "aaa"),
        ("ab", "ab"),
        ("abc", "ab"),
        ("abcab", "abab"),
        ("aabbcc", "aabb"),
    ],
)
def test_requests_enter_oldest_first_until_all_places_are_taken(queue: str, admitted: str) -> None:
    door = Admission(max_loras=2, slice_seconds=SLICE)
    arrivals(door, queue)
    assert names(door.admit(now=0)) == admitted


def test_a_freed_place_goes_to_whoever_waits_longest() -> None:
    door = Admission(max_loras=1, slice_seconds=SLICE)
    first, *_ = arrivals(door, "abcb")
    door.admit(now=0)
    door.leave(first)
    assert names(door.admit(now=1)) == "bb"


def test_a_busy_adapter_is_closed_after_its_slice_while_others_wait() -> None:
    door = Admission(max_loras=1, slice_seconds=SLICE)
    arrivals(door, "ab")
    door.admit(now=0)
    door.arrive("a")
    assert names(door.admit(now=SLICE - 0.1)) == "a"
    door.arrive("a")
    assert names(door.admit(now=SLICE)) == ""
    assert names(door.waiting) == "ba"


def test_a_busy_adapter_stays_open_while_nobody_else_waits() -> None:
    door = Admission(max_loras=1, slice_seconds=SLICE)
    arrivals(door, "a")
    door.admit(now=0)
    door.arrive("a")
    assert names(door.admit(now=100 * SLICE)) == "a"


def test_only_as_many_places_close_as_adapters_wait() -> None:
    door = Admission(max_loras=2, slice_seconds=SLICE)
    arrivals(door, "a")
    door.admit(now=0)
    arrivals(door, "bcab")
    assert names(door.admit(now=SLICE)) == "bb"
    assert names(door.waiting) == "ca"


def test_somebody_who_gives_up_waiting_closes_nobody() -> None:
    door = Admission(max_loras=1, slice_seconds=SLICE)
    _, impatient = arrivals(door, "ab")
    door.admit(now=0)
    door.leave(impatient)
    door.arrive("a")
    assert names(door.admit(now=SLICE)) == "a"


def test_the_next_adapter_is_the_one_waiting_longest_outside() -> None:
    door = Admission(max_loras=1, slice_seconds=SLICE)
    arrivals(door, "acb")
    assert door.next_adapter() == "a"
    door.admit(now=0)
    assert door.next_adapter() == "c"


@pytest.mark.parametrize("seed", range(20))
def test_in_any_storm_places_are_bounded_nobody_starves_and_no_request_is_lost(seed: int) -> None:
    draw = random.Random(seed)
    places, longest, adapters = draw.randint(1, 4), 5.0, "abcdefgh"
    door = Admission(places, SLICE)
    now = 0.0
    arrived: dict[Ticket, float] = {}
    running: dict[Ticket, float] = {}
    done: set[Ticket] = set()
    # Everybody outside may first see each place held for a slice and then for one longest request.
    bound = len(adapters) * (SLICE + longest)

    def step() -> None:
        for ticket in [t for t, end in running.items() if end <= now]:
            del running[ticket]
            door.leave(ticket)
            done.add(ticket)
        for ticket in door.admit(now):
            assert now - arrived[ticket] <= bound
            running[ticket] = now + draw.uniform(0.1, longest)
        assert len({ticket.adapter for ticket in running}) <= places
        assert {*door.waiting, *running, *done} == set(arrived)

    for _ in range(400):
        now += draw.expovariate(10)
        # One adapter sends most of the requests.
        ticket = door.arrive("a" if draw.random() < 0.7 else draw.choice(adapters))
        arrived[ticket] = now
        step()
    while running or door.waiting:
        now = min(running.values())
        step()
    assert done == set(arrived)
