"""Normalised rows on disk: memory holds where each one begins, and never all of them.

Passages of documents are read whole: there are fewer.
"""

import json
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shared.files.normalised import NormalisedRow


class RowFile:
    """The rows of one ``rows.jsonl``, by their index: 16 bytes of memory each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begins = array("Q")
        self.lines = array("Q")
        """Each row's line in its user's file, ascending; it names the row."""
        self.grouped = False
        """Whether a row names its group."""
        begin = 0
        with path.open("rb") as file:
            for text in file:
                self._begins.append(begin)
                row = NormalisedRow.model_validate_json(text)
                self.lines.append(row.line)
                self.grouped = self.grouped or row.group is not None
                begin += len(text)
        if len(set(self.lines)) < len(self.lines):
            # Rows of a JSON array may all stand on one line; then they are numbered.
            self.lines = array("Q", range(1, len(self.lines) + 1))

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, index: int) -> NormalisedRow:
        with self._path.open("rb") as file:
            file.seek(self._begins[index])
            row = NormalisedRow.model_validate_json(file.readline())
        return row.model_copy(update={"line": self.lines[index]})

    def __iter__(self) -> Iterator[NormalisedRow]:
        with self._path.open("rb") as file:
            for line, text in zip(self.lines, file, strict=True):
                row = NormalisedRow.model_validate_json(text)
                yield row if row.line == line else row.model_copy(update={"line": line})

    def at_line(self, line: int) -> NormalisedRow:
        """Return the row that ``line`` names."""
        return self[bisect_left(self.lines, line)]


class Passage(NamedTuple):
    """A part of a document."""

    source: str
    """Its document, and where in it."""
    text: str


def read_passages(path: Path) -> Iterator[Passage]:
    """Yield the passages that an upload's check has written."""
    with path.open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            yield Passage(", ".join(filter(None, [line["document"], line["place"]])), line["text"])
