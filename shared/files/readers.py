"""Rows out of training files, one at a time: memory stays bounded by the longest row.

Each reader yields ``(line number, row or BadRow)``; ``Unreadable`` ends the file. What a file holds
is told by its first bytes; the name decides only where they leave it open.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from shared.files.csv_rows import has_header, read_csv
from shared.files.forms import BadRow, Unreadable
from shared.files.json_rows import read_json
from shared.files.source import GZIP, MAX_LINE_BYTES, Text, Unpacked
from shared.files.tables import Table
from shared.files.workbook import OLE, Notice, read_workbook

__all__ = ["MAX_LINE_BYTES", "read"]

Numbered = tuple[int, dict[str, Any] | BadRow]

_ZIP = b"PK\x03\x04"
_WORKBOOK_PART = b"[Content_Types].xml"
_DIRECTORY_BYTES = 2**20
"""The names of a zip file's parts stand at its end."""
_WORKBOOKS = {"xlsx", "xlsm", "xltx", "xltm", "xlsb", "xls", "xlt", "ods"}
"""Those that cannot be read are refused by their own name."""
_TABLES = {"csv", "tsv", "tab"}
_JSON = {"jsonl", "json", "ndjson", "jsonlines"}
_PACKED = {
    b"BZh": "bzip2",
    b"\xfd7zX": "xz",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"%PDF": "PDF",
    b"PAR1": "Parquet",
}


def read(path: Path, filename: str, notice: Notice) -> Iterator[Numbered]:
    """Yield the rows of the file at ``path``, whose user calls it ``filename``.

    ``notice`` is called with a line and what its owner should know about it.
    """
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        ending = _ending(filename)
        if start.startswith(GZIP):
            yield from _read_packed(file, filename, notice)
        elif ending in _WORKBOOKS or start in (OLE, _ZIP):
            if ending not in _WORKBOOKS and start == _ZIP:
                _refuse_archive(file)
            yield from _read_workbook(file, notice)
        else:
            _refuse_other(start)
            yield from _read_text(Text(file, notice), ending, notice)


def _ending(filename: str) -> str:
    return filename.strip().rsplit(".", 1)[-1].lower()


def _read_packed(file: IO[bytes], filename: str, notice: Notice) -> Iterator[Numbered]:
    content = Unpacked(file)
    start = content.read(4)
    content.seek(0)
    if start.startswith(GZIP):
        raise Unreadable(1, "this is gzip within gzip; pack the file only once")
    if start in (OLE, _ZIP):
        raise Unreadable(1, "this is a workbook or zip file within gzip; upload it unpacked")
    _refuse_other(start)
    inner = filename.strip().lower().removesuffix(".gz")
    yield from _read_text(Text(content, notice), _ending(inner), notice)


def _refuse_archive(file: IO[bytes]) -> None:
    """Raise Unreadable for a zip file that is no workbook; leave the file at its beginning."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _DIRECTORY_BYTES))
    directory = file.read()
    file.seek(0)
    if _WORKBOOK_PART not in directory:
        raise Unreadable(
            1, "this is a zip file and no workbook; unpack it and upload what it holds"
        )


def _refuse_other(start: bytes) -> None:
    for mark, name in _PACKED.items():
        if start.startswith(mark):
            raise Unreadable(
                1, f"this is a {name} file; upload it as JSONL, CSV or .xlsx (packed: gzip)"
            )


def _read_text(text: Text, ending: str, notice: Notice) -> Iterator[Numbered]:
    head = text.head()
    start = head.lstrip("\ufeff \t\r\n\u3000")[:1]
    if start and start in "{[":
        yield from read_json(text)
    elif ending in _TABLES or has_header(head):
        yield from read_csv(text, notice)
    elif ending in _JSON or not head.strip():
        yield from read_json(text)
    else:
        raise Unreadable(
            1,
            "this is neither JSON nor a CSV file with a header that is understood; "
            "save it as .jsonl, .csv or .xlsx",
        )


def _read_workbook(file: IO[bytes], notice: Notice) -> Iterator[Numbered]:
    """Yield the rows of the first visible sheet below its header, as Excel shows them."""
    table: Table | None = None
    for number, cells in read_workbook(file, notice):
        if table is not None:
            row = cells if isinstance(cells, BadRow) else table.row(cells)
            if row is not None:
                yield number, row
        elif isinstance(cells, BadRow):
            raise Unreadable(number, str(cells))
        else:
            table = Table(number, cells, notice)
