"""Workbooks: what a person sees in Excel is what is trained, or they are told by row.

The first visible sheet is read as a stream; hidden rows, columns and sheets are passed over with a
notice. A cell's text is the one that Excel shows (see number_format). A cell whose text is not
there (an error, a formula without a value) makes its row a ``BadRow`` that names the cell.
docs/workbooks.md has the rules for users.
"""

from collections.abc import Callable, Iterator
from typing import IO

from shared.files.forms import BadRow, Unreadable
from shared.files.workbook_package import DAMAGED, Damaged, Package, Sheet
from shared.files.workbook_sheet import SheetRows

Notice = Callable[[int, str], None]
"""Takes a row's number and what its owner should know about it."""

OLE = b"\xd0\xcf\x11\xe0"
"""How both a workbook with a password and one of Excel 97 begin."""
_CHUNK = 2**20
_MAX_NAMED = 5


def read_workbook(file: IO[bytes], notice: Notice) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Yield the rows that hold anything, the header's first: row number in Excel, cells' texts.

    Raises Unreadable where the rest cannot be read.
    """
    if file.read(4) == OLE:
        raise Unreadable(1, _of_ole(file))
    file.seek(0)
    number = 0
    try:
        package = Package(file)
        book = package.book()
        sheet = _first_visible(package, book.sheets, notice)
        rows = SheetRows(package, book, sheet, notice)
        for number, cells in rows:
            yield number, cells
    except Damaged:
        raise Unreadable(max(1, number), DAMAGED) from None
    if number == 0:
        raise Unreadable(1, "the first sheet is empty")


def _of_ole(file: IO[bytes]) -> str:
    """Tell a password from the format of Excel 97 by the streams' names in the OLE directory."""
    password, old = "EncryptedPackage".encode("utf-16-le"), "Book".encode("utf-16-le").lower()
    found, tail = "", b""
    while chunk := file.read(_CHUNK):
        window = (tail + chunk).lower()
        if password.lower() in window:
            return "the workbook has a password; save it without the password and upload that"
        if old in window:
            found = "this is a workbook of the old .xls format; save it as .xlsx or as CSV (UTF-8)"
        tail = chunk[-len(password) :]
    return found or "this is not a workbook that can be read; save it as .xlsx or as CSV (UTF-8)"


def _first_visible(package: Package, sheets: list[Sheet], notice: Notice) -> Sheet:
    """Choose the sheet to read; tell of all others that hold something."""
    visible = [sheet for sheet in sheets if not sheet.hidden]
    if not visible:
        raise Unreadable(1, "the workbook has no visible sheet; show the sheet that is to be read")
    first = visible[0]
    hidden = [s for s in sheets if s.hidden and _holds_something(package, s)]
    others = [s for s in visible[1:] if _holds_something(package, s)]
    if hidden:
        notice(1, f"hidden sheets are not read: {_names(hidden)}")
    if others:
        notice(
            1,
            f'only the first visible sheet, "{first.name}", is read; not read: {_names(others)}. '
            "Upload each of them as a file of its own",
        )
    return first


def _holds_something(package: Package, sheet: Sheet) -> bool:
    """Say whether any cell has a value; looks no further than the first."""
    try:
        return any(text for tag, _, text in package.events(sheet.part) if tag in ("v", "t"))
    except Damaged:
        return True


def _names(sheets: list[Sheet]) -> str:
    names = ", ".join(f'"{sheet.name}"' for sheet in sheets[:_MAX_NAMED])
    return names + (f" and {len(sheets) - _MAX_NAMED} more" if len(sheets) > _MAX_NAMED else "")
