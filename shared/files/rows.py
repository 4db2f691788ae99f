"""Validation of a training file, streaming: every problem named by its line, every row normalised.

Runs at upload and in ``tailor file check``; ``normalised`` says how a row is written.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from shared.files.forms import BadRow, Unreadable, blank, group_of, normalise
from shared.files.headers import unused
from shared.files.normalised import NormalisedRow
from shared.files.readers import read
from shared.files.report import MAX_PROBLEMS, MIN_ROWS, Format, Problem, Report
from shared.files.tables import UNUSED

__all__ = ["MAX_PROBLEMS", "MIN_ROWS", "Problem", "Report", "validate"]

MAX_REMEMBERED_ROWS = 200_000
"""Duplicates are looked for among the first rows only, so that memory stays bounded."""


def validate(path: Path, filename: str, rows_path: Path | None = None) -> Report:
    """Read the file at ``path`` as its user named it, ``filename``, and report what is in it.

    With ``rows_path`` the normalised rows are written there. Never raises for bad content: whatever
    is wrong stands in the report, with its line.
    """
    report = Report()
    with rows_path.open("w", encoding="utf-8") if rows_path else nullcontext() as target:
        check = _Check(report, target)
        try:
            for line, row in read(path, filename, report.add_warning):
                check.row(line, row)
        except Unreadable as error:
            report.add_error(error.line, error.message)
    if report.ok and report.rows == 0:
        report.add_error(1, "the file holds no rows")
    return report


class _Check:
    """What must be remembered from row to row."""

    def __init__(self, report: Report, target: IO[str] | None) -> None:
        self.report = report
        self.target = target
        self._first_lines: dict[bytes, int] = {}
        self._warned_of_keys = False
        self._warned_of_blank = False
        self._line = 0
        self._on_line = 0
        """How many rows began on this line: those of a JSON array may all stand on one."""

    def row(self, line: int, row: dict[str, Any] | BadRow) -> None:
        """Count, compare and write one row, or record what is wrong with it."""
        self._on_line = self._on_line + 1 if line == self._line else 1
        self._line = line
        try:
            if isinstance(row, BadRow):
                raise row
            if row and all(map(blank, row.values())):
                self._pass_over(line)
                return
            form, messages = normalise(row)
            group = group_of(row)
            self._same_format(form)
        except BadRow as error:
            nth = f"row {self._on_line} of this line: " if self._on_line > 1 else ""
            self.report.add_error(line, f"{nth}{error}")
            return
        self.report.rows += 1
        of_group = {} if group is None else {"group": group}
        normal = NormalisedRow(line=line, messages=tuple(messages), **of_group)
        self._warn(row, normal)
        if self.target is not None:
            self.target.write(normal.text() + "\n")

    def _pass_over(self, line: int) -> None:
        if not self._warned_of_blank:
            self._warned_of_blank = True
            self.report.add_warning(line, "rows that hold nothing are passed over")

    def _same_format(self, form: Format) -> None:
        if self.report.format is None:
            self.report.format = form
        if form != self.report.format:
            raise BadRow(
                f"the file began with {self.report.format} rows; this one has the form {form}"
            )

    def _warn(self, row: dict[str, Any], normal: NormalisedRow) -> None:
        line = normal.line
        if normal.messages[-1].role != "assistant":
            self.report.add_warning(line, "what follows the last assistant message is not learnt")
        if not self._warned_of_keys and unused(tuple(row)):
            self._warned_of_keys = True
            self.report.add_warning(line, UNUSED)
        digest = bytes.fromhex(normal.digest())[:16]
        first = self._first_lines.get(digest)
        if first is not None:
            self.report.add_warning(line, f"the same as line {first}")
        elif len(self._first_lines) < MAX_REMEMBERED_ROWS:
            self._first_lines[digest] = line
