"""The learning curve: what the same questions say of models that learnt a share of the rows."""

from collections.abc import Mapping

from shared.evidence import figures
from shared.evidence.arms import Arm
from shared.evidence.report import CurvePoint, Report
from shared.evidence.words import Language, words


def curve_of(reports: Mapping[float, Report]) -> tuple[CurvePoint, ...]:
    """Return a point for each share's tuned model, the smallest first; one alone is no curve."""
    rows = {share: round(share * report.data.training_rows) for share, report in reports.items()}
    tuned = {
        share: arm.score
        for share, report in sorted(reports.items())
        for arm in report.arms
        if arm.arm == Arm.TUNED
    }
    points = tuple(CurvePoint(rows=rows[share], score=score) for share, score in tuned.items())
    return points if len(points) > 1 else ()


def same_questions(one: Report, other: Report) -> bool:
    """Say whether two comparisons asked the same, of the same rows, and judged alike."""
    return _asked(one) == _asked(other)


def _asked(report: Report) -> tuple[object, ...]:
    data, how = report.data, report.reproduction
    drawn = how.seed if data.questions < data.held_out_rows else None
    return data.held_out_sha256, data.questions, drawn, report.checker, how.max_tokens


def lesson(report: Report, language: Language) -> str:
    """Say whether the last step of the curve rises; there must be a curve.

    Rises: what all rows reached lies above the interval of the step before.
    """
    before, last = report.learning_curve[-2:]
    w = words(language)
    rises = last.score.value > before.score.high
    return w["curve_rises" if rises else "curve_flat"].format(
        rows=figures.count(last.rows),
        score=figures.score(last.score.value, binary=report.binary),
        before=figures.score(before.score.value, binary=report.binary),
        rows_before=figures.count(before.rows),
    )
