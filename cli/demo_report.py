"""What the demo shows: the loss curve, answers side by side, and what it found in one line."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.evidence import figures
from shared.evidence.arms import TUNED_ARMS, Arm
from shared.evidence.report import ArmResult, Report

if TYPE_CHECKING:
    from openai import OpenAI

ROWS_SHOWN = 20
"""Questions whose answers are printed; the report is of all."""


def print_answers(console: Console, rows: Iterable[dict[str, Any]]) -> None:
    """Print some of a comparison's questions with what base and tuned model said."""
    table = Table("question", "expected", "base model", "", "tuned model", "", show_lines=True)
    for row in rows:
        by_arm = {answer["arm"]: answer for answer in row["answers"]}
        cells = [
            cell
            for arm in (Arm.ZERO_SHOT, Arm.TUNED)
            for cell in (
                Text(" ".join(by_arm[arm]["answer"].split())),
                _mark(by_arm[arm]["score"] == 1),
            )
        ]
        table.add_row(Text(row["question"]), Text(row["expected"]), *cells)
    console.print(table)


def _mark(passed: bool) -> Text:
    return Text("✓", style="green") if passed else Text("✗", style="red")


def print_loss_curve(console: Console, client: "OpenAI", job_id: str) -> None:
    """Draw training and validation loss over the steps, from the job's own events."""
    import plotext  # noqa: PLC0415  slow to import; only the demo draws

    metrics = _metrics(client, job_id)
    figure = plotext.figure
    figure.plot_size(min(console.width, 100), 18)
    figure.theme("clear")
    figure.title("loss")
    figure.label("step")
    for name, label in (("train_loss", "training"), ("full_valid_loss", "validation")):
        points = [(m["step"], m[name]) for m in metrics if m.get(name) is not None]
        if points:
            signal = figure.signal([step for step, _ in points], [loss for _, loss in points])
            signal.lines()
            signal.label(label)
            figure.draw(signal)
    console.print(Text(plotext.uncolorize(str(figure.build()))))


def _metrics(client: "OpenAI", job_id: str) -> list[dict[str, Any]]:
    """Return the figures of a job's metric events, in the order of the steps."""
    events = client.fine_tuning.jobs.list_events(job_id, limit=100)
    data = [dict(event.data) for event in events if isinstance(event.data, dict)]
    return sorted((d for d in data if "step" in d), key=lambda d: int(d["step"]))


def print_last_line(report: Report) -> None:
    """Print what the demo found, in the form that scripts read: never tuned without the others."""
    by_arm = {result.arm: result for result in report.arms}
    untuned = [result for result in report.arms if result.arm not in TUNED_ARMS]
    shown = [by_arm[Arm.ZERO_SHOT], max(untuned, key=lambda each: each.score.value)]
    found = ", ".join(_figure(each, binary=report.binary) for each in [*shown, by_arm[Arm.TUNED]])
    typer.echo(f"demo: {report.verdict.kind} ({found})")


def _figure(result: ArmResult, *, binary: bool) -> str:
    return f"{result.arm} {figures.score(result.score.value, binary=binary)}"
