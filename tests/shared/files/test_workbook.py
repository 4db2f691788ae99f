"""Workbooks as files: sheets, refusals by name, and attacks that cost little."""

import io
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook

from shared.files import workbook_package
from shared.files.rows import validate
from shared.files.workbook import read_workbook
from tests.shared.files.workbooks import HEAD, SECRET, book, read, refusal, row, sheet, text

BIG = 1_000_000


def test_hidden_sheets_are_passed_over_and_others_named() -> None:
    old, empty = sheet(HEAD, row(2, text("A2", SECRET))), sheet()
    rows, notices = read(
        book(
            sheets=(
                ("古い", "hidden", old),
                ("more", "veryHidden", old),
                ("FAQ", "visible", sheet(HEAD, row(2))),
                ("Sheet3", "visible", empty),
                ("FAQ2", "visible", old),
            )
        )
    )
    assert rows == [(1, ["prompt", "completion"]), (2, ["q2", "a2"])]
    assert [line for line, _ in notices] == [1, 1]
    assert notices[0][1] == 'hidden sheets are not read: "古い", "more"'
    assert '"FAQ", is read; not read: "FAQ2". Upload' in notices[1][1]
    assert "no visible sheet" in refusal(book(sheets=(("a", "hidden", old),)))


def ole(*names: str) -> io.BytesIO:
    """Write how an OLE file with such streams begins."""
    body = b"".join(name.encode("utf-16-le").ljust(128, b"\0") for name in names)
    return io.BytesIO(bytes.fromhex("D0CF11E0A1B11AE1") + bytes(504) + body)


def other(*names: str) -> io.BytesIO:
    """Write a zip with parts of these names."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return target


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (
            ole("Root Entry", "EncryptionInfo", "EncryptedPackage"),
            "has a password; save it without",
        ),
        (ole("Root Entry", "Workbook"), "old .xls format; save it as .xlsx"),
        (ole("Root Entry", "Book"), "old .xls format"),
        (ole("Root Entry", "WordDocument"), "not a workbook"),
        (other("xl/workbook.bin"), ".xlsb"),
        (other("mimetype", "content.xml"), ".ods"),
        (other("word/document.xml"), "not a workbook"),
        (other("hello.txt"), "damaged"),
        (io.BytesIO(b""), "damaged"),
        (io.BytesIO(book(HEAD, row(2)).getvalue()[:-700]), "damaged"),
        (book(HEAD, "<row r='2'><c r='A2'></row>"), "damaged"),
        (book(HEAD, row(3), row(2)), "damaged"),
        (book(HEAD, row(2, "<c r='A2' t='s'><v>9</v></c>")), "damaged"),
        (book(), "empty"),
    ],
)
def test_each_file_that_cannot_be_read_is_called_by_its_name(file: io.BytesIO, reason: str) -> None:
    assert reason in refusal(file)


@pytest.mark.parametrize("name", ["faq.xls", "faq.xlsx", "faq.csv"])
def test_an_old_workbook_is_known_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw").write_bytes(ole("Workbook").getvalue())
    (error,) = validate(tmp_path / "raw", name).errors
    assert "old .xls format" in error.message


def test_notices_stand_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(book(HEAD, row(2, attrs="hidden='1'"), row(3)).getvalue())
    report = validate(tmp_path / "raw", "a.xlsm")
    assert (report.rows, [w.line for w in report.warnings]) == (1, [2])


def test_entities_and_foreign_parts_are_not_followed() -> None:
    bomb = f"<!DOCTYPE x [<!ENTITY a '{SECRET}'>]>" + sheet(row(1, text("A1", "&a;")))
    assert "damaged" in refusal(book(sheets=(("a", "visible", bomb),)))
    assert "damaged" in refusal(other("../../etc/passwd"))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (lambda: book(HEAD, row(2, "<c/>" * BIG)), "cells in one row"),
        (lambda: book(HEAD, row(999_999_999_999)), "beyond Excel's 1,048,576 rows"),
        (lambda: book(HEAD, row(1_048_577)), "beyond Excel's 1,048,576 rows"),
    ],
    ids=["cells", "jump", "one too many"],
)
def test_small_files_that_unpack_to_much_are_refused(file: object, reason: str) -> None:
    made = file()  # type: ignore[operator]
    assert len(made.getvalue()) < 50_000
    started = time.process_time()
    assert reason in refusal(made)
    assert time.process_time() - started < 2


def test_shared_texts_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workbook_package, "MAX_STRINGS", 10_000)
    assert "more than 10,000 texts" in refusal(book(HEAD, strings="<si/>" * 10_001))


def test_all_elements_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook_package, "MAX_ELEMENTS", 10_000)
    assert "too many cells" in refusal(book(HEAD, "<row/>" * 11_000))
    assert "too many cells" in refusal(book(HEAD, "<x/>" * 11_000))
    assert "too many cells" in refusal(book(HEAD, strings="<si><t/></si>" * 6_000))


def test_memory_does_not_grow_with_the_rows() -> None:
    made = book(HEAD, *(row(number) for number in range(2, 6_000)))
    tracemalloc.start()
    count = sum(1 for _ in read_workbook(made, print))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 5_999
    assert peak < 3 * 2**20


def test_what_openpyxl_writes_is_read() -> None:
    made, target = Workbook(), io.BytesIO()
    made.worksheets[0].append(["prompt", "completion"])
    made.worksheets[0].append(["合計", "=1+1"])
    made.save(target)
    rows, _ = read(target)
    assert rows[0] == (1, ["prompt", "completion"])
    assert "never calculated" in rows[1][1]
