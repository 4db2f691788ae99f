"""The report's table in Markdown, as documentation shows it."""

from shared.evidence import figures
from shared.evidence.report import ArmResult, Report
from shared.evidence.verdict import sentence
from shared.evidence.words import Language, arm_name, words


def markdown(report: Report, language: Language = "en") -> str:
    """Return the verdict and the table of a report."""
    header = _header(report, language)
    rows = [_row(arm, report, language) for arm in report.arms]
    rule = ["---", *["---:"] * (len(header) - 1)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
    return f"**{sentence(report.verdict, report.arms, language)}**\n\n{table}\n"


def _header(report: Report, language: Language) -> list[str]:
    w = words(language)
    points = f"{w['points']}, " if report.binary else ""
    return [
        w["arm"],
        w["right"] if report.binary else w["questions_column"],
        f"{w['share'] if report.binary else w['score']} ({w['interval_column']})",
        f"{w['difference']} ({points}{w['interval_column']})",
        f"{w['prompt_tokens']} ({w['tokens']})",
        f"{w['completion_tokens']} ({w['tokens']})",
        f"{w['first_token']} ({w['seconds']})",
        f"{w['whole_answer']} ({w['seconds']})",
        f"{w['thousand']} ({w['tokens']})",
    ]


def _row(arm: ArmResult, report: Report, language: Language) -> list[str]:
    score = figures.score(arm.score.value, binary=report.binary)
    return [
        arm_name(arm.arm, language),
        figures.right(arm),
        f"{score} ({figures.score_interval(arm.score, binary=report.binary)})",
        _difference(arm, report, language),
        figures.tokens(arm.prompt_tokens),
        figures.tokens(arm.completion_tokens),
        figures.seconds(arm.first_token_seconds),
        figures.seconds(arm.answer_seconds),
        figures.tokens_per_thousand(arm),
    ]


def _difference(arm: ArmResult, report: Report, language: Language) -> str:
    w = words(language)
    if arm.difference is None:
        return w["reference"] if arm.arm == report.reference else figures.NONE
    score = arm.difference.score
    value = figures.difference(score.value, binary=report.binary)
    return f"{value} ({figures.difference_interval(score, binary=report.binary, to=w['to'])})"
