"""Rows out of JSONL, CSV and XLSX files, one at a time: memory stays bounded by the longest line.

Each reader yields ``(line number, row or BadRow)``; ``Unreadable`` ends the file.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from shared.files.forms import EXPECTED, KNOWN_KEYS, BadRow, Unreadable, format_of
from shared.files.workbook import OLE, Notice, read_workbook

Numbered = tuple[int, dict[str, Any] | BadRow]
Kind = Literal["jsonl", "csv", "xlsx"]

MAX_LINE_BYTES = 4 * 2**20
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_ZIP = b"PK\x03\x04"
_WORKBOOKS = {"xlsx", "xlsm", "xltx", "xltm", "xlsb", "xls", "xlt", "ods"}
"""Those that cannot be read are refused by their own name."""


def read(path: Path, filename: str, notice: Notice) -> Iterator[Numbered]:
    """Yield the rows of the file at ``path``, whose user calls it ``filename``.

    ``notice`` is called with a line and what its owner should know about it.
    """
    kind = kind_of(filename)
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == _ZIP and kind != "xlsx":
            raise Unreadable(1, "this is a workbook or zip file; name a workbook .xlsx")
        if kind == "xlsx" or start == OLE:
            yield from read_xlsx(file, notice)
        elif kind == "csv":
            yield from read_csv(file)
        else:
            yield from read_jsonl(file)


def kind_of(filename: str) -> Kind:
    """Tell the kind of a file by its name; without a known ending it is JSONL."""
    ending = filename.rsplit(".", 1)[-1].lower()
    if ending in _WORKBOOKS:
        return "xlsx"
    return "csv" if ending in {"csv", "tsv"} else "jsonl"


def read_jsonl(file: IO[bytes]) -> Iterator[Numbered]:
    """Yield one JSON object a line; blank lines are passed over."""
    for number, line in _lines(file):
        if isinstance(line, BadRow):
            yield number, line
        elif number == 1 and line.lstrip().startswith("["):
            raise Unreadable(1, "this is a JSON array; write one JSON object on each line (JSONL)")
        elif line.strip():
            yield number, _json_object(line)


def _json_object(line: str) -> dict[str, Any] | BadRow:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow(f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError):
        return BadRow("not usable JSON: a number is too long or the nesting too deep")
    return value if isinstance(value, dict) else BadRow("not a JSON object")


def read_csv(file: IO[bytes]) -> Iterator[Numbered]:
    """Yield the rows below a header line; comma, semicolon or tab, quotes as Excel writes them."""
    lines = _Text(file)
    header = next(lines, "")
    delimiter = max(",;\t", key=lambda mark: len(_known(header.split(mark))))
    columns = _columns(next(_csv_rows([header], delimiter), (1, []))[1])
    for number, cells in _csv_rows(lines, delimiter):
        if any(cells):
            yield number, _cells_as_row(columns, cells)


def _csv_rows(lines: "_Text | list[str]", delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of the line it begins on."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.number + 1 if isinstance(lines, _Text) else 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise Unreadable(number, f"not valid CSV: {error}") from None
        yield number, cells


def read_xlsx(file: IO[bytes], notice: Notice) -> Iterator[Numbered]:
    """Yield the rows of the first visible sheet below its header, as Excel shows them."""
    columns: list[str] | None = None
    for number, cells in read_workbook(file, notice):
        if columns is not None:
            yield number, cells if isinstance(cells, BadRow) else _cells_as_row(columns, cells)
        elif isinstance(cells, BadRow):
            raise Unreadable(number, str(cells))
        else:
            columns = _columns(cells)


def _known(names: list[str]) -> set[str]:
    return KNOWN_KEYS.intersection(name.strip().strip('"').lower() for name in names)


def _columns(names: list[str]) -> list[str]:
    columns = [name.strip().lower() for name in names]
    try:
        format_of(set(columns))
    except BadRow:
        raise Unreadable(1, f"the header is not understood: {EXPECTED}") from None
    return columns


def _cells_as_row(columns: list[str], cells: list[str]) -> dict[str, Any] | BadRow:
    if any(cells[len(columns) :]):
        return BadRow(f"more cells than the header's {len(columns)} columns")
    padded = cells + [""] * (len(columns) - len(cells))
    row: dict[str, Any] = {name: cell for name, cell in zip(columns, padded, strict=False) if name}
    if "messages" in row:
        try:
            row["messages"] = json.loads(row["messages"])
        except (ValueError, RecursionError):
            return BadRow('"messages" does not hold valid JSON')
    return row


class _Text(Iterator[str]):
    """Decoded lines for the csv module, which counts lines only inside itself."""

    def __init__(self, file: IO[bytes]) -> None:
        self._lines = _lines(file)
        self.number = 0

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        if isinstance(line, BadRow):
            raise Unreadable(self.number, str(line))
        return line


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str | BadRow]]:
    """Yield decoded lines; one that is too long is skipped without being held in memory."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            line = _without_bom(line)
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            yield number, BadRow(f"longer than {MAX_LINE_BYTES // 2**20} MiB")
            continue
        yield number, _decode(line, number)


def _without_bom(line: bytes) -> bytes:
    if line.startswith(_UTF16_BOMS):
        raise Unreadable(1, "the file is encoded in UTF-16; save it as UTF-8")
    return line.removeprefix(_BOM)


def _decode(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        found = f"byte {error.start + 1} (0x{line[error.start]:02X}) is not UTF-8"
        guess = "it looks like Shift-JIS; " if _is_shift_jis(line) else ""
        raise Unreadable(number, f"{found}; {guess}save the file as UTF-8") from None


def _is_shift_jis(line: bytes) -> bool:
    try:
        text = line.decode("cp932")
    except UnicodeDecodeError:
        return False
    # Kana, kanji or half-width katakana; cp932 also turns stray bytes into private characters.
    japanese = any("\u3040" <= mark <= "\u9fff" or "\uff61" <= mark <= "\uff9f" for mark in text)
    return japanese and not any("\ue000" <= mark <= "\uf8ff" for mark in text)
