"""A comparison's report in the terminal: verdict, table, and how to read it."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.evidence import figures
from shared.evidence.arms import TUNED_ARMS
from shared.evidence.curve import lesson
from shared.evidence.report import ArmResult, Report
from shared.evidence.verdict import sentence
from shared.evidence.words import arm_name, words

WORDS = words("en")
WIDE = 112
"""Columns from which times and the tokens of answers have room."""


def print_report(console: Console, report: Report) -> None:
    """Print the report's verdict and table, and what a reader must know of them."""
    console.print(Text(sentence(report.verdict, report.arms, "en"), style="bold"))
    console.print()
    console.print(_table(report, wide=console.width >= WIDE))
    console.print()
    for line in _notes(report):
        console.print(Text(line))


def _table(report: Report, *, wide: bool) -> Table:
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("arm")
    share = "share" if report.binary else "score"
    right = "right" if report.binary else "n"
    extra = ("answer", "tokens/1,000", "first s", "whole s") if wide else ()
    for title in (right, share, "95% interval", "diff.", "95% interval", "prompt", *extra):
        table.add_column(title, justify="right", no_wrap=True)
    for arm in report.arms:
        cells = [*_cells(arm, report), *(_extra(arm) if wide else ())]
        table.add_row(*cells, style="bold" if arm.arm in TUNED_ARMS else None)
    return table


def _cells(arm: ArmResult, report: Report) -> list[str]:
    binary = report.binary
    return [
        arm_name(arm.arm, "en"),
        figures.right(arm),
        figures.score(arm.score.value, binary=binary),
        figures.score_interval(arm.score, binary=binary),
        *_difference(arm, report),
        figures.tokens(arm.prompt_tokens),
    ]


def _difference(arm: ArmResult, report: Report) -> tuple[str, str]:
    if arm.difference is None:
        return figures.NONE, "reference" if arm.arm == report.reference else figures.NONE
    score = arm.difference.score
    return (
        figures.difference(score.value, binary=report.binary),
        figures.difference_interval(score, binary=report.binary),
    )


def _extra(arm: ArmResult) -> tuple[str, ...]:
    return (
        figures.tokens(arm.completion_tokens),
        figures.tokens_per_thousand(arm),
        figures.seconds(arm.first_token_seconds),
        figures.seconds(arm.answer_seconds),
    )


def _notes(report: Report) -> Iterator[str]:
    unit = "in points, " if report.binary else ""
    reference = arm_name(report.reference, "en")
    yield (
        f"diff.: to “{reference}” on the same questions, {unit}with its 95% interval; one that "
        "leaves out zero is unlikely to be chance. prompt: mean tokens."
    )
    for arm in report.arms:
        for count, text in ((arm.failed, WORDS["failed"]), (arm.cut, WORDS["cut"])):
            if count:
                yield f"{arm_name(arm.arm, 'en')}: {text.format(count=figures.count(count))}."
    if report.data.leaks_found:
        yield f"{WORDS['data_leaks']}: {report.data.leaks_found:,}, {WORDS['data_leaks_line']}."
    if report.data.clustered_by == "none":
        yield f"{WORDS['caveat_title']}: {WORDS['caveat']}"
    if report.costs:
        yield _repayment(report.costs.answers_to_repay)
    if report.learning_curve:
        yield from _curve(report)


def _curve(report: Report) -> Iterator[str]:
    yield f"{WORDS['curve']}:"
    for point in report.learning_curve:
        score = figures.score(point.score.value, binary=report.binary)
        interval = figures.score_interval(point.score, binary=report.binary)
        rows = WORDS["curve_rows"].format(rows=figures.count(point.rows))
        yield f"  {rows:<24}{score:>7}  {interval}"
    yield lesson(report, "en")


def _repayment(answers: int | None) -> str:
    if answers is None:
        return WORDS["repay_never_line"]
    return WORDS["repay_line"].format(count=figures.count(answers))
