"""The example data sets by name: what is trained, what is asked, and how answers are judged."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from examples.company.build import HELD_OUT, TRAIN
from examples.rows import Row, to_jsonl
from shared.evidence.checkers import Checker, score


class Data(StrEnum):
    """The example data sets."""

    COMPANY = "company"
    STDLIB = "stdlib"
    CHANGELOG = "changelog"
    FAQ_JA = "faq-ja"


@dataclass(frozen=True)
class Question:
    """One held-out row."""

    messages: tuple[dict[str, str], ...]
    """All but the answer."""
    expected: str
    group: str | None = None
    """Rows of one group tell of the same thing; None where rows are independent."""

    @property
    def text(self) -> str:
        """What is asked, without what stands before every question."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class DataSet:
    """What a demonstration trains on, and asks afterwards."""

    tenant: str
    """Name of the company whose data it is."""
    training_file: Path
    held_out_file: Path
    """Rows of the same form; their answers are what ``checker`` expects."""
    checker: Checker
    max_tokens: int
    """Longer than any ideal answer; the base model would talk on."""

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """The held-out rows, in the order of the file."""
        lines = self.held_out_file.read_text(encoding="utf-8").splitlines()
        return tuple(_question(json.loads(line)) for line in lines)

    @cached_property
    def values(self) -> frozenset[str]:
        """Every answer that some question expects."""
        return frozenset(question.expected for question in self.questions)

    def passes(self, question: Question, answer: str) -> bool:
        """Say whether an answer is right."""
        return score(self.checker, answer, question.expected, self.values) == 1

    def majority(self) -> float:
        """Return the share of questions that the most frequent expected answer would get right."""
        counts = Counter(question.expected for question in self.questions)
        return max(counts.values()) / len(self.questions)


def data_set(data: Data, folder: Path) -> DataSet:
    """Return an example; one that is not shipped as it is, is built into ``folder``."""
    return _MAKERS[data](folder)


def company(_folder: Path | None = None) -> DataSet:
    """Return the example company's facts, asked in unseen words."""
    return DataSet("Brindle Kiln Works", TRAIN, HELD_OUT, Checker.FACT, max_tokens=40)


def stdlib(folder: Path) -> DataSet:
    """Return the standard library's docstrings, to be labelled with their module."""
    from examples.stdlib.build import build  # noqa: PLC0415  parses some hundred source files

    files = _write(folder, *build())
    # Not LABEL: that would mark an untuned model wrong for the sentence around the module's name.
    return DataSet("Standard Library Readers", *files, Checker.FACT, max_tokens=40)


def changelog(folder: Path) -> DataSet:
    """Return the entries of Debian changelogs, to be turned into JSON."""
    from examples.changelog.build import build  # noqa: PLC0415  only this example reads entries

    files = _write(folder, *build())
    return DataSet("Package Archive Watch", *files, Checker.JSON, max_tokens=160)


def faq_ja(folder: Path) -> DataSet:
    """Return Debian's Japanese FAQ, asked in unseen words; raises FaqMissing."""
    from examples.faq_ja.build import build  # noqa: PLC0415  only this example reads the FAQ

    files = _write(folder, *build())
    return DataSet("Debian 相談室", *files, Checker.CHRF, max_tokens=320)


_MAKERS: dict[Data, Callable[[Path], DataSet]] = {
    Data.COMPANY: company,
    Data.STDLIB: stdlib,
    Data.CHANGELOG: changelog,
    Data.FAQ_JA: faq_ja,
}


def _write(folder: Path, train: Iterable[Row], held_out: Iterable[Row]) -> tuple[Path, Path]:
    files = folder / "train.jsonl", folder / "held_out.jsonl"
    for path, rows in zip(files, (train, held_out), strict=True):
        path.write_text(to_jsonl(rows), encoding="utf-8")
    return files


def _question(row: Row) -> Question:
    *messages, answer = row["messages"]
    return Question(tuple(messages), answer["content"], row.get("group"))
