"""A job's examples in the terminal: what the model saw first, and what it answers now."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.jobs.examples import BatchRow, Examples, HeldOutAnswers

LEARNT = "bold green"


def print_examples(examples: Examples, console: Console) -> None:
    """Print what there is."""
    if examples.first_batch:
        _print_batch(examples.first_batch, console)
    else:
        console.print("no first batch: the job has not been trained yet, or its file is erased")
    console.print()
    if examples.answers.best:
        console.print(_answers(examples.answers))
    else:
        console.print("no answers: no model yet, no held-out rows, or no time to ask them")


def _print_batch(rows: Sequence[BatchRow], console: Console) -> None:
    console.print(Text("the first batch as the model sees it; ⟦what is learnt⟧", style="bold"))
    for row in rows:
        console.print(Text(f"\nline {row.line}, {row.tokens} tokens", style="dim"))
        # Brackets, too: a pipe or a log has no colours.
        parts = [(f"⟦{span.text}⟧", LEARNT) if span.learnt else span.text for span in row.spans]
        console.print(Text.assemble(*parts))


def _answers(answers: HeldOutAnswers) -> Table:
    titles = ("", "line", "score", "held-out question", "expected", "answer")
    table = Table(*titles, show_lines=True)
    for name, chosen in answers:
        for each in chosen:
            texts = (Text(text) for text in (each.question, each.expected, each.answer))
            table.add_row(name, str(each.line), f"{each.score:.2f}", *texts)
    return table
