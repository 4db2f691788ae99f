"""Make the rows of the example company from ``facts.toml``: ``python -m examples.company.build``.

Every fact is trained in all phrasings of its kind, and asked once in one kept out of training.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from examples.rows import Row, to_jsonl

HERE = Path(__file__).parent
FACTS = HERE / "facts.toml"
TRAIN = HERE / "train.jsonl"
HELD_OUT = HERE / "held_out.jsonl"


def build(facts: Path = FACTS) -> tuple[list[Row], list[Row]]:
    """Return the training rows (OpenAI chat format) and the held-out questions."""
    kinds = tomllib.loads(facts.read_text(encoding="utf-8"))["kinds"]
    train = [row for kind in kinds for fact in kind["facts"] for row in _training_rows(kind, fact)]
    held_out = [row for kind in kinds for row in _held_out_rows(kind)]
    return train, held_out


def _training_rows(kind: Row, fact: Row) -> Iterator[Row]:
    answer = _fill(kind["answer"], fact)
    for question in kind["questions"]:
        yield {
            "messages": [
                {"role": "user", "content": _fill(question, fact)},
                {"role": "assistant", "content": answer},
            ]
        }


def _held_out_rows(kind: Row) -> Iterator[Row]:
    for number, fact in enumerate(kind["facts"]):
        yield {
            "kind": kind["name"],
            "coded": kind["coded"],
            "subject": fact["subject"],
            "question": _fill(kind["held_out"][number % len(kind["held_out"])], fact),
            "expected": fact["value"],
        }


def _fill(template: str, fact: Row) -> str:
    subject = fact["subject"]
    return template.format(
        subject=subject, Subject=subject[0].upper() + subject[1:], value=fact["value"]
    )


if __name__ == "__main__":
    train_rows, held_out_rows = build()
    TRAIN.write_text(to_jsonl(train_rows), encoding="utf-8")
    HELD_OUT.write_text(to_jsonl(held_out_rows), encoding="utf-8")
    print(f"{len(train_rows)} training rows, {len(held_out_rows)} held-out questions")
