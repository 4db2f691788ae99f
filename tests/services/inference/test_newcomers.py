"""What vLLM's own scheduler computes in one step, with newcomers among its requests."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.services.inference.engine_steps import Steps

pytestmark = pytest.mark.slow  # vLLM takes ten seconds to import


@pytest.fixture
def steps() -> "Steps":
    # Not at the top: whoever collects the tests would wait for vLLM.
    from tests.services.inference.engine_steps import Steps  # noqa: PLC0415

    return Steps()


def test_a_newcomer_begins_in_a_step_of_its_own(steps: "Steps") -> None:
    for number in range(1, 3):
        steps.ask(f"flood {number}", priority=number)
    assert steps.step() == ["flood 1", "flood 2"]
    steps.ask("flood 3", priority=3, tokens=200)
    steps.ask("newcomer")
    assert steps.step() == ["newcomer"]
    assert steps.step() == ["flood 1", "flood 2", "flood 3", "newcomer"]


def test_newcomers_never_take_two_steps_in_a_row(steps: "Steps") -> None:
    steps.ask("flood", priority=1)
    assert steps.step() == ["flood"]
    steps.ask("first")
    assert steps.step() == ["first"]
    steps.ask("second")
    assert steps.step() == ["first", "flood", "second"]


def test_without_others_a_newcomer_is_computed_as_ever(steps: "Steps") -> None:
    steps.ask("first")
    steps.ask("waiting", priority=1)
    assert steps.step() == ["first", "waiting"]


def test_a_newcomer_does_not_push_anybody_out(steps: "Steps") -> None:
    names = [f"flood {number}" for number in range(1, steps.most + 1)]
    for number, name in enumerate(names, start=1):
        steps.ask(name, priority=number)
    assert steps.step() == names
    steps.ask("newcomer")
    assert steps.step() == names
    steps.end(names[0])
    assert steps.step() == ["newcomer"]
    assert steps.step() == [*names[1:], "newcomer"]


def test_who_waits_keeps_the_order(steps: "Steps") -> None:
    steps.ask("flood 1", priority=1)
    steps.step()
    steps.ask("flood 3", priority=3, tokens=64)
    steps.ask("flood 2", priority=2, tokens=63)
    steps.ask("newcomer")
    assert steps.step() == ["newcomer"]
    assert steps.step() == ["flood 1", "flood 2", "newcomer"]
