"""Rows that repeat, nearly repeat or contradict one another, in one file and across both.

Exact: hashes. Near: ``shared.datareport.near``.
"""

from shared.datareport.near import Sketches
from shared.datareport.report import Found, Param
from shared.datareport.rows import Row, digest

MAX_EXACT_ROWS = 500_000
MAX_NEAR_ROWS = 200_000
"""Later rows are not compared: about 60 bytes of hashes and 700 of sketches for each row."""


class Duplicates:
    """The check for both files, the training file first."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._rows: dict[int, tuple[Param, int]] = {}
        self._prompts: dict[int, tuple[int, int]] = {}
        self._where: list[tuple[Param, int]] = []
        self._sketches = Sketches()
        self.seen = 0

    def row(self, file: Param, row: Row) -> None:
        """Look at one row."""
        self.seen += 1
        if len(self._rows) >= MAX_EXACT_ROWS or not row.answers:
            return
        file_before, line_before = self._rows.setdefault(row.digest(), (file, row.line))
        if (file_before, line_before) != (file, row.line):
            kind = "duplicate" if file_before == file else "validation_overlap"
            self._found.add(file, kind, row.line, line_before)
            return
        if file == "training_file":
            self._contradicts(row)
        if len(self._where) < MAX_NEAR_ROWS:
            self._sketch(file, row)

    def done(self) -> None:
        """Name the rows that are nearly the same as an earlier one."""
        earlier: dict[int, int] = {}
        for first, second in self._sketches.pairs():
            earlier[second] = min(first, earlier.get(second, first))
        for second, first in sorted(earlier.items()):
            (file, line), (file_before, line_before) = self._where[second], self._where[first]
            kind = "near_duplicate" if file == file_before else "validation_near_overlap"
            self._found.add(file, kind, line, line_before)

    def limits(self) -> list[str]:
        """Say what was not compared."""
        if self.seen <= MAX_NEAR_ROWS:
            return []
        limit = (
            f"Near duplicates were looked for among the first {MAX_NEAR_ROWS:,} distinct rows, "
            f"exact ones and contradictions among the first {MAX_EXACT_ROWS:,}."
        )
        return [limit]

    def _contradicts(self, row: Row) -> None:
        answer = digest(row.answer)
        line_before, answer_before = self._prompts.setdefault(
            digest(row.prompt), (row.line, answer)
        )
        if answer != answer_before:
            self._found.add("training_file", "contradiction", row.line, line_before)

    def _sketch(self, file: Param, row: Row) -> None:
        self._where.append((file, row.line))
        self._sketches.add(row.prompt, row.answer)
