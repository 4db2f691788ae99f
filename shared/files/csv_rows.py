"""Rows out of CSV text: comma, semicolon, tab or bar; quotes as spreadsheet programs write them."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any

from shared.files.forms import BadRow, Unreadable, blank
from shared.files.headers import EXPECTED, known
from shared.files.source import Text
from shared.files.tables import Table
from shared.files.workbook import Notice

_DELIMITERS = ",;\t|"
_BREAK = re.compile(r"\r\n?")
_HINT = re.compile(r'"?sep=(.|\\t)"?\s*', re.IGNORECASE)


def read_csv(text: Text, notice: Notice) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yield the rows below a header; a row's number is the line on which it begins."""
    lines = _Lines(text)
    delimiter, first = _beginning(lines)
    table: Table | None = None
    for number, cells in _rows(lines, first, delimiter):
        if table is None:
            if isinstance(cells, BadRow):
                raise Unreadable(number, str(cells))
            if not all(map(blank, cells)):
                table = Table(number, cells, notice)
            continue
        row = cells if isinstance(cells, BadRow) else table.row(cells)
        if row is not None:
            yield number, row
    if table is None:
        raise Unreadable(1, f"the header is not understood: the file is empty; {EXPECTED}")


def has_header(head: str) -> bool:
    """Say whether a text begins like a CSV file whose header is understood."""
    lines = [line for line in head.splitlines() if line.strip(" \t\u3000;,|")][:2]
    if lines and _HINT.fullmatch(lines[0]):
        return True
    return bool(lines) and max(_matches(lines[0], mark) for mark in _DELIMITERS) > 0


class _Lines(Iterator[str]):
    """Lines for the csv module, which counts them only inside itself."""

    def __init__(self, text: Text) -> None:
        self._lines = text.lines()
        self.number = 0
        self.bad: tuple[int, BadRow] | None = None
        """A line of the row being read that could not be decoded."""

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        if isinstance(line, BadRow):
            self.bad = self.bad or (self.number, line)
            return "\n"
        return line


def _beginning(lines: _Lines) -> tuple[str, list[str]]:
    """Return the delimiter and the lines that were read to find it."""
    for line in lines:
        if lines.bad:
            raise Unreadable(lines.number, str(lines.bad[1]))
        if hint := _HINT.fullmatch(line):
            return hint[1].replace("\\t", "\t"), []
        if not blank(line.strip(_DELIMITERS + " \r\n")):
            return max(_DELIMITERS, key=lambda mark: _matches(line, mark)), [line]
    return ",", []


def _matches(line: str, delimiter: str) -> int:
    try:
        return known(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return 0


def _rows(
    lines: _Lines, first: list[str], delimiter: str
) -> Iterator[tuple[int, list[str] | BadRow]]:
    read_again = len(first)
    reader = csv.reader(_chained(first, lines), delimiter=delimiter, strict=True)
    while True:
        number = lines.number + 1 - read_again
        read_again = 0
        row: list[str] | BadRow
        try:
            row = [_BREAK.sub("\n", cell) if "\r" in cell else cell for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            row = BadRow(_in_words(error, number, lines.number))
        if lines.bad:
            number, row = lines.bad
            lines.bad = None
        yield number, row


def _chained(first: list[str], lines: Iterable[str]) -> Iterator[str]:
    yield from first
    yield from lines


def _in_words(error: csv.Error, first: int, last: int) -> str:
    """Say what the csv module found; raise Unreadable where the rest cannot be trusted."""
    if "end of data" in str(error):
        raise Unreadable(
            first, "not valid CSV: a quotation mark that opens in this row is never closed"
        )
    if "field limit" in str(error):
        message = f"not valid CSV: a cell is longer than {csv.field_size_limit():,} characters"
        if last > first:
            raise Unreadable(first, f"{message}; is a quotation mark not closed?")
        return message
    if "expected after" in str(error):
        return "not valid CSV: a quotation mark inside a quoted cell must be written twice"
    return f"not valid CSV: {error}"
