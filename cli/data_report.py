"""A data report as a person likes to read it: figures in one table, findings in another."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.datareport.report import KINDS, DataReport, Figures, Finding

FILES = {"training_file": "training", "validation_file": "validation"}
STYLES = {"error": "bold red", "warn": "yellow", "info": "cyan"}
SHOWN_LINES = 20


def print_data_report(report: DataReport | Mapping[str, Any], console: Console) -> None:
    """Print the figures of both files and what was found, worst first."""
    if not isinstance(report, DataReport):
        report = DataReport.model_validate(report)
    console.print(_figures(report))
    for limit in report.limits:
        console.print(limit)
    if report.findings:
        console.print(_findings(report.findings))
    else:
        console.print("nothing to remark")


def _figures(report: DataReport) -> Table:
    files = {"training_file": report.training_file, "validation_file": report.validation_file}
    present = {name: figures for name, figures in files.items() if figures}
    table = Table("data report", *(FILES[name] for name in present))
    for number in range(1, len(present) + 1):
        table.columns[number].justify = "right"
    columns = [dict(_lines(figures, report)) for figures in present.values()]
    for label in dict.fromkeys(label for column in columns for label in column):
        table.add_row(label, *(column.get(label, "") for column in columns))
    if report.estimated_trained_tokens:
        epochs = f"{report.n_epochs} epochs, about"
        table.add_row(epochs, f"{report.estimated_trained_tokens:,} tokens")
    return table


def _lines(figures: Figures, report: DataReport) -> Sequence[tuple[str, str]]:
    languages = ", ".join(f"{name} {count:,}" for name, count in figures.languages.items())
    lines = [("rows", f"{figures.rows:,}"), ("languages", languages)]
    tokens = figures.tokens
    if tokens is None:
        return lines
    spread = f"{tokens.min:,} / {tokens.median:,} / {tokens.p95:,} / {tokens.max:,}"
    return [
        *lines,
        ("tokens", f"{tokens.total:,}"),
        ("tokens a row: least / median / p95 / most", spread),
        ("of which answers", f"{tokens.answers:,} ({tokens.answer_share:.0%})"),
        (f"longest row, of {report.context_length:,}", f"{tokens.context_share:.0%}"),
    ]


def _findings(findings: Sequence[Finding]) -> Table:
    table = Table("", "file", "finding", "rows", "lines")
    table.columns[3].justify = "right"
    for finding in findings:
        table.add_row(
            Text(finding.severity, style=STYLES[finding.severity]),
            FILES[finding.file],
            KINDS[finding.kind].title if finding.kind in KINDS else finding.kind,
            f"{finding.count:,}",
            line_list(finding),
        )
    return table


def line_list(finding: Finding) -> str:
    """Return ``3, 7-9, 12 (like 4) … and 30 more``; neighbours without a likeness are joined."""
    shown = finding.lines[:SHOWN_LINES]
    if finding.like:
        parts = [f"{a} (like {b})" for a, b in zip(shown, finding.like, strict=False)]
    else:
        parts = _ranges(shown)
    hidden = finding.count - len(shown)
    return ", ".join(parts) + (f" … and {hidden:,} more" if hidden > 0 else "")


def _ranges(lines: Sequence[int]) -> list[str]:
    runs = []
    ascending = enumerate(sorted(set(lines)))
    for _, group in groupby(ascending, key=lambda item: item[1] - item[0]):
        run = [line for _, line in group]
        runs.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]))
    return runs
