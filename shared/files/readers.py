"""Rows out of JSONL, CSV and XLSX files, one at a time: memory stays bounded by the longest line.

Each reader yields ``(line number, row or BadRow)``; ``Unreadable`` ends the file.
"""

import csv
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from shared.files.forms import EXPECTED, KNOWN_KEYS, BadRow, format_of

Numbered = tuple[int, dict[str, Any] | BadRow]
Kind = Literal["jsonl", "csv", "xlsx"]

MAX_LINE_BYTES = 4 * 2**20
MAX_WORKBOOK_ROWS = 1_048_576
"""Excel's own limit."""
MAX_COLUMNS = 64
MAX_XML_BYTES = 256 * 2**20
"""Of all parts of a workbook, unpacked."""
MAX_SHARED_BYTES = 64 * 2**20
"""Of the parts that openpyxl holds in memory: everything but the sheets."""
MAX_XML_PARTS = 1000

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_ZIP = b"PK\x03\x04"


class Unreadable(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message


def read(path: Path, filename: str) -> Iterator[Numbered]:
    """Yield the rows of the file at ``path``, whose user calls it ``filename``."""
    kind = kind_of(filename)
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == _ZIP and kind != "xlsx":
            raise Unreadable(1, "this is a workbook or zip file; name a workbook .xlsx")
        if kind == "xlsx":
            yield from read_xlsx(file)
        elif kind == "csv":
            yield from read_csv(file)
        else:
            yield from read_jsonl(file)


def kind_of(filename: str) -> Kind:
    """Tell the kind of a file by its name; without a known ending it is JSONL."""
    ending = filename.rsplit(".", 1)[-1].lower()
    if ending == "xlsx":
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


def read_xlsx(file: IO[bytes]) -> Iterator[Numbered]:
    """Yield the rows of the first sheet below its header row."""
    _refuse_zip_bomb(file)
    number = 0
    try:
        for number, cells in enumerate(_sheet_rows(file), start=1):
            if number == 1:
                columns = _columns([_cell_text(cell) for cell in cells])
            elif any(cell is not None for cell in cells):
                yield number, _cells_as_row(columns, [_cell_text(cell) for cell in cells])
    except (Unreadable, OSError, MemoryError, GeneratorExit):
        raise
    except Exception as error:  # openpyxl raises whatever a broken workbook trips it over
        raise Unreadable(max(1, number), "the workbook is damaged or not an .xlsx file") from error
    if number == 0:
        raise Unreadable(1, "the first sheet is empty")


def _sheet_rows(file: IO[bytes]) -> Iterator[tuple[Any, ...]]:
    from openpyxl import load_workbook  # noqa: PLC0415  0.2 s that only workbooks pay

    workbook = load_workbook(file, read_only=True, data_only=True, keep_links=False)
    try:
        sheet = workbook.worksheets[0]
        # A sheet may claim any size: its own claim is dropped, ours bounds what is filled in.
        sheet.reset_dimensions()
        for count, row in enumerate(sheet.iter_rows(max_col=MAX_COLUMNS, values_only=True)):
            if count >= MAX_WORKBOOK_ROWS:
                raise Unreadable(count, f"more than {MAX_WORKBOOK_ROWS} rows")
            yield row
    finally:
        workbook.close()


def _refuse_zip_bomb(file: IO[bytes]) -> None:
    """Check the sizes that the archive declares; zipfile never unpacks more than declared."""
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        raise Unreadable(1, "the workbook is damaged or not an .xlsx file") from None
    finally:
        file.seek(0)
    in_memory = sum(p.file_size for p in parts if not p.filename.startswith("xl/worksheets/"))
    if (
        len(parts) > MAX_XML_PARTS
        or in_memory > MAX_SHARED_BYTES
        or sum(part.file_size for part in parts) > MAX_XML_BYTES
    ):
        raise Unreadable(1, "the workbook is too large unpacked; save it as CSV (UTF-8)")


def _cell_text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


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
