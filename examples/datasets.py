"""The example data sets by name: a training file, and questions with the answers expected."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from examples.checking import correct
from examples.company.build import HELD_OUT, TRAIN
from examples.rows import Row, to_jsonl


@dataclass(frozen=True)
class Question:
    """One held-out question."""

    kind: str
    text: str
    expected: str


@dataclass(frozen=True)
class DataSet:
    """What a demonstration trains on, and asks afterwards."""

    tenant: str
    """Name of the company whose data it is."""
    training_file: Path
    questions: tuple[Question, ...]

    def passes(self, question: Question, answer: str) -> bool:
        """Say whether an answer states the expected value and that of no other fact."""
        return correct(answer, question.expected, {other.expected for other in self.questions})

    def majority(self) -> float:
        """Return the share of questions that the most frequent expected answer would get right."""
        counts = Counter(question.expected for question in self.questions)
        return max(counts.values()) / len(self.questions)


def company() -> DataSet:
    """Return the example company's facts."""
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    return DataSet("Brindle Kiln Works", TRAIN, _questions([json.loads(line) for line in lines]))


def stdlib(folder: Path) -> DataSet:
    """Build the standard library's docstrings into ``folder`` and return them."""
    from examples.stdlib.build import build  # noqa: PLC0415  parses some hundred source files

    train, held_out = build()
    path = folder / "train.jsonl"
    path.write_text(to_jsonl(train), encoding="utf-8")
    return DataSet("Standard Library Readers", path, _questions(held_out))


def _questions(rows: list[Row]) -> tuple[Question, ...]:
    return tuple(Question(row["kind"], row["question"], row["expected"]) for row in rows)
