"""The report in the terminal, and its table in Markdown."""

import pytest
from rich.console import Console

from cli.compare_report import print_report
from shared.evidence import figures
from shared.evidence.markdown import markdown
from shared.evidence.report import Report
from shared.evidence.verdict import sentence
from shared.evidence.words import Language, arm_name
from tests.shared.evidence.reports import before_training, full


def printed(report: Report, width: int) -> list[str]:
    console = Console(width=width, record=True, markup=False, highlight=False)
    print_report(console, report)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("report", [full(), full("either", binary=False), before_training()])
def test_every_arm_has_its_figures_on_one_line(report: Report, width: int) -> None:
    lines = printed(report, width)
    assert max(map(len, lines)) <= width
    start = next(i for i, line in enumerate(lines) if line.startswith("arm ")) + 1
    for arm, line in zip(report.arms, lines[start : start + len(report.arms)], strict=True):
        name, binary = arm_name(arm.arm, "en"), report.binary
        figures_shown = [
            name,
            figures.right(arm),
            figures.score(arm.score.value, binary=binary),
            figures.score_interval(arm.score, binary=binary),
        ]
        if arm.difference:
            apart = arm.difference.score
            figures_shown.append(figures.difference(apart.value, binary=binary))
            figures_shown.append(figures.difference_interval(apart, binary=binary))
        figures_shown.append(figures.tokens(arm.prompt_tokens))
        if width == 120:
            figures_shown.append(figures.tokens_per_thousand(arm))
            figures_shown.append(figures.seconds(arm.answer_seconds))
        assert [text for text in figures_shown if text not in line] == []


def test_the_notes_tell_what_was_cut_leaked_and_not_grouped() -> None:
    after, before = ("\n".join(printed(report, 120)) for report in (full(), before_training()))
    assert "Retrieved passages: 3 not asked" in after
    assert "Zero-shot: 12 answers cut" in after
    assert "Leaks found: 5" in after
    assert "After 2,290 answers" in after
    assert "Unseen phrasings" not in after
    assert "Unseen phrasings of seen facts" in before


def test_without_shorter_prompts_training_is_never_repaid() -> None:
    report = full()
    assert report.costs
    costs = report.costs.model_copy(update={"answers_to_repay": None})
    assert "not repaid" in "\n".join(printed(report.model_copy(update={"costs": costs}), 120))


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_markdown_table_has_a_line_for_each_arm_and_as_many_cells_in_each(
    language: Language,
) -> None:
    report = full()
    verdict, empty, *table = markdown(report, language).splitlines()
    assert verdict == f"**{sentence(report.verdict, report.arms, language)}**"
    assert empty == ""
    assert len(table) == 2 + len(report.arms)
    assert {line.count("|") for line in table} == {10}
    tuned = next(line for line in table if arm_name("tuned", language) in line)
    assert "| 132/150 | 88.0% (82.9–92.6) |" in tuned
