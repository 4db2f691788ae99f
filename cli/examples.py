"""A job's examples in the terminal: what the model saw first, and what is learnt of it."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from shared.jobs.examples import BatchRow, Examples

LEARNT = "bold green"


def print_examples(examples: Examples, console: Console) -> None:
    """Print what there is."""
    if examples.first_batch:
        _print_batch(examples.first_batch, console)
    else:
        console.print("no first batch: the job has not been trained yet, or its file is erased")


def _print_batch(rows: Sequence[BatchRow], console: Console) -> None:
    console.print(Text("the first batch as the model sees it; ⟦what is learnt⟧", style="bold"))
    for row in rows:
        console.print(Text(f"\nline {row.line}, {row.tokens} tokens", style="dim"))
        # Brackets, too: a pipe or a log has no colours.
        parts = [(f"⟦{span.text}⟧", LEARNT) if span.learnt else span.text for span in row.spans]
        console.print(Text.assemble(*parts))
