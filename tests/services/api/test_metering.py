"""Answers that their readers leave: every choice and every prompt is counted."""

import pytest

from services.api.completions.metering import Meter
from services.api.metrics import Metrics


def piece(index: int, prompt: int, completion: int) -> dict[str, object]:
    """Build one piece of a stream with the running totals of its choice, as vLLM sends it."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"choices": [{"index": index}], "usage": usage}


def counted(meter: Meter, metrics: Metrics) -> tuple[float | None, float | None]:
    """Write down and return prompt and completion tokens."""
    meter.record()
    value = metrics.registry.get_sample_value
    return (
        value("tailor_tokens_total", {"kind": "base", "direction": "prompt"}),
        value("tailor_tokens_total", {"kind": "base", "direction": "completion"}),
    )


@pytest.mark.parametrize(
    ("n", "pieces", "expected"),
    [
        (1, [piece(0, 7, 1), piece(0, 7, 2)], (7, 2)),
        (8, [piece(i, 7, t) for t in (1, 2, 3) for i in range(8)], (7, 24)),
        (8, [piece(0, 7, 5), piece(3, 7, 9)], (7, 14)),
        (1, [piece(0, 7, 4), piece(1, 5, 2), piece(2, 3, 1)], (15, 7)),
        (2, [piece(0, 7, 4), piece(1, 7, 2), piece(2, 3, 1), piece(3, 3, 1)], (10, 8)),
        (2, [piece(0, 7, 4), {"choices": [], "usage": None}], (7, 4)),
        (8, [], (0, 0)),
    ],
)
def test_an_abandoned_answer_costs_the_sum_over_its_choices(
    n: int, pieces: list[dict[str, object]], expected: tuple[int, int]
) -> None:
    metrics = Metrics()
    meter = Meter(metrics, "org-x", "base", is_adapter=False, n=n)
    for found in pieces:
        meter.count(found)
    assert counted(meter, metrics) == expected


def test_the_totals_at_the_end_are_not_added_to_the_running_ones() -> None:
    metrics = Metrics()
    meter = Meter(metrics, "org-x", "base", is_adapter=False, n=2)
    for index in (0, 1):
        meter.count(piece(index, 7, 3))
    meter.count({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 6}})
    assert counted(meter, metrics) == (7, 6)


def test_a_whole_answer_brings_its_totals() -> None:
    metrics = Metrics()
    meter = Meter(metrics, "org-x", "base", is_adapter=False, n=8)
    meter.count_whole({"prompt_tokens": 9, "completion_tokens": 80})
    assert counted(meter, metrics) == (9, 80)
