"""One sheet of a workbook, row by row: cells become the texts that Excel shows."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from math import isfinite
from typing import NamedTuple

from shared.files.builtin_formats import BUILTIN, GENERAL, REGIONAL
from shared.files.date_format import Unrendered
from shared.files.forms import BadRow, Unreadable
from shared.files.number_format import show_number, show_text
from shared.files.workbook_package import Book, Damaged, Package, Sheet, is_true, unescaped

MAX_ROWS = 1_048_576
"""Excel's own limit."""
MAX_COLUMNS = 256
"""Columns that are read; Excel itself has 16,384."""
MAX_CELLS_IN_ROW = 16_384
MAX_MERGES = 100_000
MAX_CELL_CHARACTERS = 4 * 2**20
_REFERENCE = re.compile(r"\$?([A-Za-z]{1,3})\$?(\d{1,7})")
_ERRORS = {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"}
_LONG_NUMBER = 1e11
_LOST_DIGITS = 1e15
_REGIONAL_CODES = {BUILTIN[number] for number in REGIONAL if number in BUILTIN}


class Cell(NamedTuple):
    """A cell as it is stored."""

    place: str
    """Such as B3."""
    kind: str
    """The attribute ``t``; "n" is a number."""
    style: str
    value: str | None
    formula: bool


class Merge(NamedTuple):
    """An area of merged cells; rows and columns from 1."""

    top: int
    bottom: int
    column: int


class SheetRows:
    """Iterates over ``(row number, cells' texts or BadRow)`` of the rows that a person sees."""

    def __init__(
        self, package: Package, book: Book, sheet: Sheet, notice: Callable[[int, str], None]
    ) -> None:
        """Read what the sheet's cells refer to; raise Damaged or Unreadable."""
        self._package = package
        self._book = book
        self._part = sheet.part
        self._tell = notice
        self._told: set[str] = set()
        self._strings = package.strings()
        self._formats = package.formats()
        self._merges = _merges(package, sheet.part)
        self._merged: dict[int, tuple[int, str]] = {}
        self._hidden_columns: list[tuple[int, int]] = []
        self._hidden_rows: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, list[str] | BadRow]]:
        for number, hidden, cells in self._rows():
            if hidden:
                self._pass_over(number, cells)
                continue
            self._tell_of_hidden_rows()
            texts = self._texts(number, cells)
            if isinstance(texts, BadRow) or any(text.strip() for text in texts):
                yield number, texts
        self._tell_of_hidden_rows()

    def _rows(self) -> Iterator[tuple[int, bool, list[Cell]]]:  # noqa: C901, PLR0912  the hot loop, flat
        """Yield each row that stores anything: its number, whether it is hidden, its cells."""
        number, hidden, column = 0, False, 0
        row: list[Cell] = []
        cell: dict[str, str] = {}
        pieces: list[str] = []
        value: str | None = None
        formula = phonetic = False
        for tag, attrs, text in self._package.events(self._part):
            if attrs is None:
                if tag == "v":
                    value = text
                elif tag == "t" and not phonetic:
                    pieces.append(text)
                elif tag == "rPh":
                    phonetic = False
                elif tag == "c":
                    if value is None and not (formula or pieces):
                        continue
                    place = cell.get("r") or f"{letters(column)}{number}"
                    kind = cell.get("t", "n")
                    stored = "".join(pieces) if kind == "inlineStr" else value
                    row.append(Cell(place, kind, cell.get("s", "0"), stored, formula))
                elif tag == "row" and row:
                    yield number, hidden, row
                elif tag == "sheetData":
                    return
            elif tag == "row":
                number = self._next(number, attrs)
                hidden = is_true(attrs.get("hidden")) or _is_zero(attrs.get("ht"))
                row, column = [], 0
            elif tag == "c":
                column += 1
                if column > MAX_CELLS_IN_ROW:
                    raise Unreadable(number, f"more than {MAX_CELLS_IN_ROW:,} cells in one row")
                cell, value, formula = attrs, None, False
                pieces.clear()
            elif tag == "f":
                formula = True
            elif tag == "rPh":
                phonetic = True
            elif tag == "col" and (is_true(attrs.get("hidden")) or _is_zero(attrs.get("width"))):
                self._hide_columns(attrs)

    def _next(self, number: int, attrs: dict[str, str]) -> int:
        stated = attrs.get("r", str(number + 1))
        if not stated.isdecimal() or (len(stated) < 9 and int(stated) <= number):
            raise Damaged
        if len(stated) > 8 or int(stated) > MAX_ROWS:
            raise Unreadable(max(1, number), f"a row is numbered beyond Excel's {MAX_ROWS:,} rows")
        return int(stated)

    def _hide_columns(self, attrs: dict[str, str]) -> None:
        first, last = attrs.get("min", ""), attrs.get("max", "")
        if first.isdecimal() and last.isdecimal() and len(self._hidden_columns) < MAX_CELLS_IN_ROW:
            self._hidden_columns.append((int(first[:9]), min(int(last[:9]), MAX_COLUMNS)))

    def _pass_over(self, number: int, cells: list[Cell]) -> None:
        """Remember a hidden row that holds something, until its neighbours are known."""
        if not any(cell.value or cell.formula for cell in cells):
            return
        if self._hidden_rows and number != self._hidden_rows[-1] + 1:
            self._tell_of_hidden_rows()
        self._hidden_rows = [*self._hidden_rows[:1], number]

    def _tell_of_hidden_rows(self) -> None:
        if self._hidden_rows:
            first, last = self._hidden_rows[0], self._hidden_rows[-1]
            which = f"row {first} is" if first == last else f"rows {first} to {last} are"
            self._tell(first, f"{which} hidden (perhaps by a filter) and not read")
            self._hidden_rows = []

    def _texts(self, number: int, cells: list[Cell]) -> list[str] | BadRow:
        texts: list[str] = []
        try:
            column = 0
            for cell in cells:
                column = self._column(cell, number, column)
                text = self._text(cell, number)
                if not text or self._is_hidden(column, text, number):
                    continue
                if column > MAX_COLUMNS:
                    return BadRow(
                        f"cell {cell.place} holds something right of column "
                        f"{letters(MAX_COLUMNS)}; only {MAX_COLUMNS} columns are read"
                    )
                texts += [""] * (column - len(texts))
                texts[column - 1] = text
        except BadRow as error:
            return error
        return self._with_merged(number, texts)

    def _column(self, cell: Cell, number: int, before: int) -> int:
        match = _REFERENCE.fullmatch(cell.place)
        if match is None or int(match[2]) != number:
            raise Damaged
        column = _index(match[1])
        if not before < column <= MAX_CELLS_IN_ROW:
            raise Damaged
        return column

    def _is_hidden(self, column: int, text: str, number: int) -> bool:
        if not any(first <= column <= last for first, last in self._hidden_columns):
            return False
        if text.strip():
            self._once(number, f"column {letters(column)} is hidden and not read")
        return True

    def _with_merged(self, number: int, texts: list[str]) -> list[str]:
        """Repeat what stands in a cell that is merged with the cells below it."""
        if not (self._merges or self._merged) or not any(text.strip() for text in texts):
            return texts
        for column, (bottom, text) in list(self._merged.items()):
            if number > bottom:
                del self._merged[column]
            elif text:
                texts += [""] * (column - len(texts))
                texts[column - 1] = text
                self._tell(number, f"the text of the merged cell in column {letters(column)} "
                           "is repeated in this row")  # fmt: skip
        while self._merges and self._merges[-1].top <= number:
            merge = self._merges.pop()
            if merge.top == number and merge.column <= len(texts):
                self._merged[merge.column] = (merge.bottom, texts[merge.column - 1])
        return texts

    def _text(self, cell: Cell, number: int) -> str:
        """Return what a cell shows; raise BadRow."""
        value = cell.value
        if cell.formula and cell.kind != "str" and self._is_uncalculated(value):
            raise BadRow(
                f"cell {cell.place} has a formula that was never calculated; open the workbook in "
                "Excel, save it and upload it again"
            )
        if value is None or value == "":
            return ""
        if cell.kind == "e":
            raise BadRow(f"cell {cell.place} shows an error ({_error_name(value)}) and not a value")
        if cell.kind == "b":
            return "TRUE" if is_true(value) else "FALSE"
        if cell.kind in ("s", "str", "inlineStr"):
            return self._string(cell, value)
        return self._number(cell, value, number)

    def _is_uncalculated(self, value: str | None) -> bool:
        # XlsxWriter leaves a 0 in place of each result and asks Excel to calculate on loading.
        return not value or (self._book.calculated_on_load and value == "0")

    def _string(self, cell: Cell, value: str) -> str:
        if cell.kind == "s":
            if not value.strip().isdecimal() or not int(value[:12]) < len(self._strings):
                raise Damaged
            text = self._strings[int(value[:12])]
        else:
            text = unescaped(value)
        code = self._format(cell.style)
        if code in (GENERAL, "@", None):
            return text
        try:
            return show_text(text, str(code))
        except Unrendered as error:
            raise BadRow(_unrendered(cell, error)) from None

    def _number(self, cell: Cell, value: str, row: int) -> str:
        code = self._format(cell.style)
        try:
            number = _serial(value, self._book.date1904) if cell.kind == "d" else float(value)
        except (ValueError, OverflowError):
            raise Damaged from None
        if code is None or not isfinite(number):
            raise BadRow(_unrendered(cell, "has a number format that is not known here"))
        if abs(number) >= _LOST_DIGITS and "E" not in code.upper().replace(GENERAL.upper(), ""):
            raise BadRow(
                f"cell {cell.place} holds a number of more than 15 digits, of which Excel keeps "
                "only 15; format the cell as text and type the number again"
            )
        if code in (GENERAL, "@") and abs(number) >= _LONG_NUMBER and number.is_integer():
            self._tell(row, f"cell {cell.place} holds a number of more than 11 digits, which Excel "
                       "may show as 1.2E+11; it is read with all its digits")  # fmt: skip
            return str(int(number))
        if code in _REGIONAL_CODES:
            self._once(row, "dates and amounts whose look depends on the computer's country are "
                       "read as Excel shows them in Japan, such as 2024/4/1")  # fmt: skip
        try:
            return show_number(number, code, self._book.date1904)
        except Unrendered as error:
            raise BadRow(_unrendered(cell, error)) from None

    def _format(self, style: str) -> str | None:
        if self._formats is None:
            return GENERAL if style == "0" else None
        if not style.isdecimal() or int(style[:9]) >= len(self._formats):
            return None
        return self._formats[int(style[:9])]

    def _once(self, number: int, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._tell(number, message)


def letters(column: int) -> str:
    """Return a column's letters; 1 is A."""
    name = ""
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(65 + rest) + name
    return name


def _index(name: str) -> int:
    index = 0
    for letter in name.upper():
        index = index * 26 + ord(letter) - 64
    return index


def _merges(package: Package, part: str) -> list[Merge]:
    """Read the areas that are merged downwards, the last first; they stand behind the cells."""
    found: list[Merge] = []
    if not package.mentions(part, "mergeCell"):
        return found
    for tag, attrs, _ in package.events(part):
        if tag != "mergeCell" or not attrs:
            continue
        corners = [_REFERENCE.fullmatch(c) for c in attrs.get("ref", "").split(":")]
        if len(corners) == 2 and corners[0] and corners[1] and len(found) < MAX_MERGES:
            top, bottom = int(corners[0][2]), int(corners[1][2])
            if top < bottom:
                found.append(Merge(top, bottom, _index(corners[0][1])))
    return sorted(found, reverse=True)


def _is_zero(size: str | None) -> bool:
    return size is not None and size.strip("0.") == "" and "0" in size


def _error_name(value: str) -> str:
    return value if value in _ERRORS else "#ERROR"


def _serial(value: str, date1904: bool) -> float:
    """Turn an ISO 8601 date into Excel's serial number."""
    when = datetime.fromisoformat(value).replace(tzinfo=None)
    start = datetime.fromisoformat("1904-01-01" if date1904 else "1899-12-30")
    return (when - start).total_seconds() / 86_400


def _unrendered(cell: Cell, why: object) -> str:
    return (
        f"cell {cell.place} {why}; what it shows cannot be read: give it a usual format in Excel, "
        "or save the sheet as CSV (UTF-8)"
    )
