"""What the demo asks and shows: answers side by side, the loss curve, the accuracy."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.datasets import DataSet, Question

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

CONCURRENCY = 16
ROWS_SHOWN = 50
"""Questions of the table; the accuracy is of all."""


def ask_all(client: "OpenAI", models: Sequence[str], examples: DataSet) -> list[list[str]]:
    """Ask every question of every model, concurrently; return the answers model by model."""
    asked = examples.questions
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        futures = [
            [pool.submit(_ask, client, model, question, examples.max_tokens) for question in asked]
            for model in models
        ]
        return [[future.result() for future in row] for row in futures]


def _ask(client: "OpenAI", model: str, question: Question, max_tokens: int) -> str:
    completion = client.chat.completions.create(
        model=model,
        messages=cast("list[ChatCompletionMessageParam]", list(question.messages)),
        max_tokens=max_tokens,
        temperature=0,
    )
    return (completion.choices[0].message.content or "").strip()


def print_answers(
    console: Console, examples: DataSet, base: Sequence[str], tuned: Sequence[str]
) -> None:
    """Print the table of the first questions, expected answers and what both models said."""
    table = Table("question", "expected", "base model", "", "tuned model", "", show_lines=True)
    rows = zip(examples.questions, base, tuned, strict=True)
    for question, before, after in islice(rows, ROWS_SHOWN):
        table.add_row(
            Text(question.text),
            Text(question.expected),
            Text(" ".join(before.split())),
            _mark(examples.passes(question, before)),
            Text(" ".join(after.split())),
            _mark(examples.passes(question, after)),
        )
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


def accuracy(examples: DataSet, answers: Sequence[str]) -> float:
    """Return the share of the questions answered correctly."""
    pairs = zip(examples.questions, answers, strict=True)
    return sum(examples.passes(question, answer) for question, answer in pairs) / len(answers)


def print_last_line(examples: DataSet, base: Sequence[str], tuned: Sequence[str]) -> None:
    """Print what the demo found, in the form that scripts read."""
    before, after = accuracy(examples, base), accuracy(examples, tuned)
    typer.echo(f"most frequent answer alone: {_percent(examples.majority())}")
    typer.echo(f"demo: held-out accuracy base {_percent(before)} -> tuned {_percent(after)}")


def _percent(share: float) -> str:
    return f"{round(100 * share, 1):g}%"
