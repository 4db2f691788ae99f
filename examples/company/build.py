"""Make the rows of the example company from ``facts.toml``: ``python -m examples.company.build``.

Every fact is trained in all phrasings of its kind, and asked in some that are kept out of training:
what is measured is unseen phrasings of seen facts. A held-out row's answer is the bare value, for
that is what a right answer states; its ``group`` is the fact.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from examples.rows import Row, row, to_jsonl

HERE = Path(__file__).parent
FACTS = HERE / "facts.toml"
TRAIN = HERE / "train.jsonl"
HELD_OUT = HERE / "held_out.jsonl"


def build(facts: Path = FACTS) -> tuple[list[Row], list[Row]]:
    """Return the training rows and the held-out rows, all in OpenAI's chat format."""
    kinds = tomllib.loads(facts.read_text(encoding="utf-8"))["kinds"]
    train = [r for kind in kinds for fact in kind["facts"] for r in _training_rows(kind, fact)]
    rounds = range(len(kinds[0]["held_out"]))
    held_out = [r for turn in rounds for kind in kinds for r in _held_out_rows(kind, turn)]
    return train, held_out


def _training_rows(kind: Row, fact: Row) -> Iterator[Row]:
    for question in kind["questions"]:
        yield row(_fill(question, fact), _fill(kind["answer"], fact))


def _held_out_rows(kind: Row, turn: int) -> Iterator[Row]:
    """Ask for each fact of a kind, in another of its phrasings at each turn."""
    phrasings = kind["held_out"]
    for number, fact in enumerate(kind["facts"]):
        question = _fill(phrasings[(number + turn) % len(phrasings)], fact)
        yield row(question, fact["value"], group=f"{kind['name']}: {fact['subject']}")


def _fill(template: str, fact: Row) -> str:
    subject = fact["subject"]
    return template.format(
        subject=subject, Subject=subject[0].upper() + subject[1:], value=fact["value"]
    )


if __name__ == "__main__":
    train_rows, held_out_rows = build()
    TRAIN.write_text(to_jsonl(train_rows), encoding="utf-8")
    HELD_OUT.write_text(to_jsonl(held_out_rows), encoding="utf-8")
    print(f"{len(train_rows)} training rows, {len(held_out_rows)} held-out rows")
