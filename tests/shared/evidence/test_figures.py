import pytest

from shared.evidence import figures
from shared.evidence.report import Interval


def test_shares_are_percent_and_differences_points() -> None:
    interval = Interval(value=-0.06, low=-0.14, high=0.0204)
    assert figures.score(0.94, binary=True) == "94.0%"
    assert figures.difference(interval.value, binary=True) == "−6.0"
    assert figures.difference_interval(interval, binary=True) == "−14.0 to +2.0"
    assert figures.size(0.0633, binary=True) == "6.3"


def test_graded_scores_keep_three_digits() -> None:
    assert figures.score(0.8731, binary=False) == "0.873"
    assert figures.difference(0.0612, binary=False) == "+0.061"
    assert figures.score_interval(Interval(value=0.5, low=0.25, high=1), binary=False) == (
        "0.250–1.000"
    )


@pytest.mark.parametrize("value", [0.0, -0.0, 0.04, -0.04])
def test_a_difference_that_rounds_to_nothing_has_no_sign(value: float) -> None:
    assert figures.signed(value, 1) == "0.0"


@pytest.mark.parametrize(
    ("p", "text"), [(None, "–"), (0.00049, "<0.001"), (0.0312, "0.031"), (1.0, "1.000")]
)
def test_p(p: float | None, text: str) -> None:
    assert figures.p_value(p) == text


@pytest.mark.parametrize(
    ("value", "english", "japanese"),
    [
        (0.4, "0 s", "0秒"),
        (59.6, "1 min 0 s", "1分0秒"),
        (252.4, "4 min 12 s", "4分12秒"),
        (7384, "2 h 3 min 4 s", "2時間3分4秒"),
    ],
)
def test_durations(value: float, english: str, japanese: str) -> None:
    assert figures.duration(value, "en") == english
    assert figures.duration(value, "ja") == japanese
