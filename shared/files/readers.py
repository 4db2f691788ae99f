"""Rows out of JSONL, CSV and XLSX files, one at a time: memory stays bounded by the longest line.

Each reader yields ``(line number, row or BadRow)``; ``Unreadable`` ends the file.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from shared.files.encoding import MARK, MARKED, NAMES, encoding_of
from shared.files.forms import BadRow, Unreadable
from shared.files.headers import cells_as_row, columns_of, known
from shared.files.packed import opened_plain
from shared.files.workbook import OLE, Notice, read_workbook

Numbered = tuple[int, dict[str, Any] | BadRow]
Lines = Iterator[tuple[int, str | BadRow]]
Kind = Literal["jsonl", "csv", "xlsx"]

MAX_LINE_BYTES = 4 * 2**20
_DECODER = json.JSONDecoder()
_TOO_DEEP = "not usable JSON: a number is too long or the nesting too deep"
_MARKS = ",;\t|"
_SEP = re.compile(r'^\ufeff?"?sep=([,;\t|])"?\s*$', re.IGNORECASE)
_BLANK = ",;\t| \r\n\u3000\u00a0"
_ZIP = b"PK\x03\x04"
_WORKBOOKS = {"xlsx", "xlsm", "xltx", "xltm", "xlsb", "xls", "xlt", "ods"}
"""Those that cannot be read are refused by their own name."""


def read(path: Path, filename: str, notice: Notice) -> Iterator[Numbered]:
    """Yield the rows of the file at ``path``, whose user calls it ``filename``.

    ``notice`` is called with a line and what its owner should know about it.
    """
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == OLE or kind_of(filename) == "xlsx" or (start == _ZIP and _is_workbook(file)):
            yield from read_xlsx(file, notice)
            return
    if start == _ZIP:
        raise Unreadable(1, "this is a zip file and no workbook; unpack it and send what is in it")
    opened = partial(opened_plain, path)
    encoding = encoding_of(opened)
    if encoding in NAMES:
        notice(1, f"the file is not UTF-8; it was read as {NAMES[encoding]}")
    with io.TextIOWrapper(opened(), encoding or "ascii", MARK, newline="") as text:
        lines = _lines(text, encoding)
        first = next(lines, (1, ""))
        again = chain([first], lines)
        if _is_table(filename, first[1]):
            yield from read_csv(again)
        else:
            yield from read_jsonl(again)


def _is_workbook(file: IO[bytes]) -> bool:
    try:
        return "[Content_Types].xml" in zipfile.ZipFile(file).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return False
    finally:
        file.seek(0)


def _is_table(filename: str, first: str | BadRow) -> bool:
    """Tell a table by its header, then by the name's ending; JSON begins with a bracket."""
    if isinstance(first, BadRow):
        return kind_of(filename) == "csv"
    if first.lstrip().startswith(("{", "[")):
        return False
    return kind_of(filename) == "csv" or bool(_SEP.match(first)) or _delimiter(first)[1] > 0


def _delimiter(header: str) -> tuple[str, int]:
    """Return the delimiter that splits a header into the most known names, and their number."""
    counted = {
        mark: known(name.strip().strip('"') for name in header.split(mark)) for mark in _MARKS
    }
    best = max(_MARKS, key=lambda mark: counted[mark])
    return best, counted[best]


def kind_of(filename: str) -> Kind:
    """Tell the kind of a file by its name; without a known ending it is JSONL."""
    ending = filename.rsplit(".", 1)[-1].lower()
    if ending in _WORKBOOKS:
        return "xlsx"
    return "csv" if ending in {"csv", "tsv"} else "jsonl"


def read_jsonl(lines: Lines) -> Iterator[Numbered]:
    """Yield one JSON object a line; an array, or objects over several lines, are read as well."""
    for number, line in lines:
        if isinstance(line, BadRow):
            yield number, line
        elif line.strip() == "{" or line.lstrip().startswith("["):
            yield from _spread(chain([(number, line)], lines))
            return
        elif line.strip():
            yield number, _json_object(line)


def _spread(lines: Lines) -> Iterator[Numbered]:
    """Yield objects that are spread over lines, each with the line it begins on."""
    text, number, wanted = "", 0, 0
    for number, line in lines:
        if isinstance(line, BadRow):
            raise Unreadable(number, str(line))
        if not text:
            start = number
        text += line
        # A long object is tried again only when it has grown by half: no quadratic work.
        while len(text) >= wanted:
            text, start = _next_value(text, start)
            if not text:
                break
            try:
                value, end = _DECODER.raw_decode(text)
            except json.JSONDecodeError as error:
                if not _goes_on(text, error) or len(text) > MAX_LINE_BYTES:
                    at = start + error.lineno - 1
                    raise Unreadable(at, f"not valid JSON: {error.msg}") from None
                wanted = len(text) + (len(text) // 2 if len(text) > 4096 else 1)
                break
            except (ValueError, RecursionError):
                raise Unreadable(start, _TOO_DEEP) from None
            yield start, value if isinstance(value, dict) else BadRow("not a JSON object")
            start += text.count("\n", 0, end)
            text, wanted = text[end:], 0
    yield from _last(text, start if text else 1)


def _last(text: str, start: int) -> Iterator[Numbered]:
    while text:
        try:
            value, end = _DECODER.raw_decode(text)
        except json.JSONDecodeError as error:
            raise Unreadable(
                start, f"not valid JSON: {error.msg}; the object is not ended"
            ) from None
        except (ValueError, RecursionError):
            raise Unreadable(start, _TOO_DEEP) from None
        yield start, value if isinstance(value, dict) else BadRow("not a JSON object")
        start += text.count("\n", 0, end)
        text, start = _next_value(text[end:], start)


def _next_value(text: str, start: int) -> tuple[str, int]:
    """Drop what stands between two objects of an array; count its lines."""
    rest = text.lstrip("[], \t\r\n\u3000")
    return rest, start + text.count("\n", 0, len(text) - len(rest))


def _goes_on(text: str, error: json.JSONDecodeError) -> bool:
    """Say whether an object may only be incomplete."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()) - 8


def _json_object(line: str) -> dict[str, Any] | BadRow:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow(f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError):
        return BadRow(_TOO_DEEP)
    return value if isinstance(value, dict) else BadRow("not a JSON object")


def read_csv(source: Lines) -> Iterator[Numbered]:
    """Yield the rows below a header line, however a spreadsheet program delimits them."""
    lines = _Text(source)
    header = next((line for line in lines if line.strip(_BLANK)), "")
    asked = _SEP.match(header)
    if asked:
        header = next(lines, "")
    delimiter = asked[1] if asked else _delimiter(header)[0]
    columns = columns_of(next(_csv_rows([header], delimiter), (1, []))[1], max(1, lines.number))
    for number, cells in _csv_rows(lines, delimiter):
        if any(cell.strip() for cell in cells):
            yield number, cells_as_row(columns, cells)


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
            yield number, cells if isinstance(cells, BadRow) else cells_as_row(columns, cells)
        elif isinstance(cells, BadRow):
            raise Unreadable(number, str(cells))
        else:
            columns = columns_of(cells)


class _Text(Iterator[str]):
    """Lines for the csv module, which counts lines only inside itself."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.number = 0

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        if isinstance(line, BadRow):
            raise Unreadable(self.number, str(line))
        return line


def _lines(text: io.TextIOWrapper, encoding: str | None) -> Iterator[tuple[int, str | BadRow]]:
    """Yield decoded lines; one that is too long is skipped without being held in memory."""
    number = 0
    while line := text.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(("\n", "\r")):
                line = text.readline(MAX_LINE_BYTES)
            yield number, BadRow(f"longer than {MAX_LINE_BYTES // 2**20} MiB")
            continue
        if not line.isascii() and (found := MARKED.search(line)):
            problem = _undecodable(line, found, encoding)
            if encoding is None:
                raise Unreadable(number, str(problem))
            yield number, problem
            continue
        # Only the file's first character is a mark; later ones are text.
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def _undecodable(line: str, found: re.Match[str], encoding: str | None) -> BadRow:
    before = len(line[: found.start()].encode("utf-8"))
    place = f"byte {before + 1} (0x{ord(found[0]) - 0xDC00:02X})"
    if encoding is None:
        return BadRow(
            f"{place} is not UTF-8, and the encoding cannot be told with certainty; "
            "save the file as UTF-8"
        )
    return BadRow(f"{place} is not {NAMES.get(encoding, 'UTF-8')}; save the file as UTF-8")
