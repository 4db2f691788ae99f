"""The learning curve: which comparisons make one, and what its last step says."""

import pytest

from shared.evidence.arms import Arm
from shared.evidence.curve import curve_of, lesson, same_questions
from shared.evidence.page import html
from shared.evidence.report import CurvePoint, Interval, Report
from tests.shared.evidence.reports import before_training, full


def changed(report: Report, part: str, **fields: object) -> Report:
    return report.model_copy(update={part: getattr(report, part).model_copy(update=fields)})


def test_its_points_are_the_tuned_models_from_the_smallest_share_to_all_rows() -> None:
    report = full()
    points = curve_of({1.0: report, 0.25: report, 0.5: report})
    tuned = next(arm.score for arm in report.arms if arm.arm == Arm.TUNED)
    rows = report.data.training_rows
    assert [(point.rows, point.score) for point in points] == [
        (round(share * rows), tuned) for share in (0.25, 0.5, 1)
    ]


def test_one_point_is_no_curve_and_without_a_tuned_model_there_is_none() -> None:
    assert curve_of({1.0: full()}) == ()
    assert curve_of({1.0: full(), 0.5: before_training()}) == ()


def test_only_the_same_questions_judged_alike_are_joined() -> None:
    report = full()
    assert same_questions(report, report)
    for other in (
        changed(report, "data", held_out_sha256="0" * 64),
        changed(report, "data", questions=7),
        changed(report, "reproduction", max_tokens=7),
        report.model_copy(update={"checker": "exact"}),
    ):
        assert not same_questions(report, other)


def test_the_seed_matters_where_questions_were_drawn() -> None:
    every = changed(full(), "data", questions=50, held_out_rows=50)
    some = changed(full(), "data", questions=50, held_out_rows=60)
    for report, same in ((every, True), (some, False)):
        other = changed(report, "reproduction", seed=report.reproduction.seed + 1)
        assert same_questions(report, other) is same


@pytest.mark.parametrize(
    ("last", "english", "japanese"),
    [
        (0.9, "more rows are likely to help", "効果が見込めます"),
        (0.74, "no rise", "上昇は見られません"),
    ],
)
def test_the_last_step_says_whether_more_rows_are_likely_to_help(
    last: float, english: str, japanese: str
) -> None:
    scores = (Interval(value=0.7, low=0.63, high=0.76), Interval(value=last, low=0, high=1))
    points = [CurvePoint(rows=n, score=score) for n, score in zip((200, 400), scores, strict=True)]
    report = full().model_copy(update={"learning_curve": tuple(points)})
    assert english in lesson(report, "en")
    assert lesson(report, "ja") in html(report, "ja")
    assert japanese in lesson(report, "ja")
