"""Workbooks: what a person sees in Excel is what is read, or they are told by row."""

import io
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook

from shared.files import workbook_package
from shared.files.forms import BadRow, Unreadable
from shared.files.rows import validate
from shared.files.workbook import read_workbook

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
RELATED = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
SECRET = "社外秘"


def text(place: str, value: str, style: int = 0) -> str:
    """Write an inline text."""
    return f"<c r='{place}' s='{style}' t='inlineStr'><is><t>{value}</t></is></c>"


def row(number: int, *cells: str, attrs: str = "") -> str:
    """Write a row; without cells, a question and an answer."""
    usual = (text(f"A{number}", f"q{number}"), text(f"B{number}", f"a{number}"))
    return f"<row r='{number}' {attrs}>{''.join(cells or usual)}</row>"


HEAD = row(1, text("A1", "prompt"), text("B1", "completion"))


def book(
    *rows: str,
    before: str = "",
    after: str = "",
    formats: tuple[str, ...] = (),
    strings: str = "",
    styles: str | None = None,
    main: str = "",
    sheets: tuple[tuple[str, str, str], ...] = (),
    **extra: bytes,
) -> io.BytesIO:
    """Write a workbook by hand: cells of style n have the n-th of ``formats``, from 1."""
    body = f"<worksheet {MAIN}>{before}<sheetData>{''.join(rows)}</sheetData>{after}</worksheet>"
    listed = sheets or (("Sheet1", "visible", body),)
    numbers = "".join(
        f"<numFmt numFmtId='{200 + i}' formatCode='{code.replace('<', '&lt;')}'/>"
        for i, code in enumerate(formats)
    )
    styled = "".join(f"<xf numFmtId='{200 + i}'/>" for i in range(len(formats)))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "_rels/.rels",
            f"<Relationships><Relationship Id='r' Type='{RELATED}/"
            "officeDocument' Target='xl/workbook.xml'/></Relationships>",
        )
        relations = [("worksheet", f"worksheets/s{i}.xml") for i in range(len(listed))]
        relations += [("sharedStrings", "sharedStrings.xml"), ("styles", "/xl/styles.xml")]
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            "<Relationships>"
            + "".join(
                f"<Relationship Id='r{i}' Type='{RELATED}/{kind}' Target='{path}'/>"
                for i, (kind, path) in enumerate(relations)
            )
            + "</Relationships>",
        )
        tabs = "".join(
            f"<sheet name='{name}' sheetId='{i + 1}' state='{state}' r:id='r{i}'/>"
            for i, (name, state, _) in enumerate(listed)
        )
        archive.writestr(
            "xl/workbook.xml",
            f"<workbook {MAIN} xmlns:r='{RELATED}'>{main}<sheets>{tabs}</sheets></workbook>",
        )
        for i, (_, _, sheet) in enumerate(listed):
            archive.writestr(f"xl/worksheets/s{i}.xml", sheet)
        archive.writestr("xl/sharedStrings.xml", f"<sst {MAIN}>{strings}</sst>")
        archive.writestr(
            "xl/styles.xml",
            styles
            if styles is not None
            else (
                f"<styleSheet {MAIN}><numFmts>{numbers}</numFmts><cellStyleXfs><xf numFmtId='9'/>"
                f"</cellStyleXfs><cellXfs><xf numFmtId='0'/>{styled}</cellXfs></styleSheet>"
            ),
        )
        for name, content in extra.items():
            archive.writestr(f"xl/{name}.xml", content)
    return target


def sheet(*rows: str) -> str:
    """Write a sheet's XML."""
    return f"<worksheet {MAIN}><sheetData>{''.join(rows)}</sheetData></worksheet>"


def read(file: io.BytesIO) -> tuple[list[tuple[int, list[str] | str]], list[tuple[int, str]]]:
    """Return rows (a BadRow as its message) and notices."""
    file.seek(0)
    notices: list[tuple[int, str]] = []
    rows = [
        (number, str(cells) if isinstance(cells, BadRow) else cells)
        for number, cells in read_workbook(
            file, lambda line, message: notices.append((line, message))
        )
    ]
    return rows, notices


def answer(cell: str, **parts: object) -> str | list[str]:
    """Read the answer of a workbook with one row, or what is wrong with it."""
    ((_, cells), *_), _ = read(book(row(2, text("A2", "q"), cell), **parts))  # type: ignore[arg-type]
    return cells[1] if isinstance(cells, list) else cells


def refusal(file: io.BytesIO) -> str:
    """Return why a workbook is refused."""
    with pytest.raises(Unreadable) as error:
        read(file)
    assert error.value.line >= 1
    return error.value.message


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        ("a_x000D_\nb", "a\nb"),
        ("a_x000d_b", "a\nb"),
        ("a_x005F_x000D_b", "a_x000D_b"),
        ("_x3042__x0041_", "あA"),
        ("_xD83D__xDE00_", "😀"),
        ("_x12_ _xZZZZ_", "_x12_ _xZZZZ_"),
    ],
)
def test_escapes_become_what_they_stand_for(stored: str, seen: str) -> None:
    assert answer(text("B2", stored)) == seen
    assert answer("<c r='B2' t='s'><v>0</v></c>", strings=f"<si><t>{stored}</t></si>") == seen
    assert answer(f"<c r='B2' t='str'><f>A1</f><v>{stored}</v></c>") == seen


@pytest.mark.parametrize(
    ("item", "seen"),
    [
        ("<r><t>太</t></r><r><rPr><b/></rPr><t>字</t></r>", "太字"),
        ("<t>東京</t><rPh sb='0' eb='2'><t>トウキョウ</t></rPh><phoneticPr fontId='1'/>", "東京"),
        ("<r><t>東</t></r><r><t>京</t></r><rPh sb='0' eb='1'><t>ヒガシ</t></rPh>", "東京"),
        ("<t xml:space='preserve'> a &amp; b </t>", " a & b "),
        ("<t/>", ""),
    ],
)
def test_runs_are_joined_and_phonetic_guides_left_out(item: str, seen: str) -> None:
    rows, _ = read(
        book(
            HEAD,
            row(2, text("A2", "q"), "<c r='B2' t='s'><v>0</v></c>"),
            strings=f"<si>{item}</si>",
        )
    )
    assert rows[1] == (2, ["q", seen] if seen else ["q"])
    assert read(book(row(2, f"<c r='A2' t='inlineStr'><is>{item}</is></c>", text("B2", "x"))))[
        0
    ] == [(2, [seen, "x"])]


def test_a_cells_format_decides_its_text() -> None:
    formats = ("0000", "0.0%", "yyyy/m/d", "[h]:mm", '@"様"')
    cells = [
        f"<c r='{c}2' s='{i}'><v>{v}</v></c>"
        for i, (c, v) in enumerate(zip("ABCD", (42, 0.085, 45383, 1.25), strict=True), start=1)
    ]
    rows, _ = read(book(row(2, *cells, text("E2", "山田", 5)), formats=formats))
    assert rows == [(2, ["0042", "8.5%", "2024/4/1", "30:00", "山田様"])]


def test_booleans_iso_dates_and_the_1904_system() -> None:
    assert answer("<c r='B2' t='b'><v>1</v></c>") == "TRUE"
    assert answer("<c r='B2' t='b'><v>0</v></c>") == "FALSE"
    dated = {"formats": ("yyyy/m/d",)}
    assert answer("<c r='B2' s='1' t='d'><v>2024-04-01T00:00:00</v></c>", **dated) == "2024/4/1"
    in_1904 = answer("<c r='B2' s='1'><v>43921</v></c>", main="<workbookPr date1904='1'/>", **dated)
    assert in_1904 == "2024/4/1"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("<c r='B2' t='e'><v>#N/A</v></c>", "cell B2 shows an error (#N/A)"),
        ("<c r='B2' t='e'><f>X!A1</f><v>#REF!</v></c>", "cell B2 shows an error (#REF!)"),
        (f"<c r='B2' t='e'><v>{SECRET}</v></c>", "cell B2 shows an error (#ERROR)"),
        ("<c r='B2'><f>A1+1</f></c>", "cell B2 has a formula that was never calculated; open"),
        ("<c r='B2'><f>A1+1</f><v></v></c>", "never calculated"),
        ("<c r='B2'><v>1234567890123456789</v></c>", "more than 15 digits"),
        ("<c r='B2' s='1'><v>5</v></c>", "cell B2 has a format that is not known here"),
        ("<c r='B2' s='7'><v>5</v></c>", "cell B2 has a number format that is not known here"),
        ("<c r='B2'><v>NaN</v></c>", "cell B2"),
        (text("IW2", "x"), "right of column IV"),
    ],
)
def test_a_cell_without_a_text_makes_its_row_bad_and_is_named(cell: str, reason: str) -> None:
    said = answer(cell, formats=("[DBNum1]0",))
    assert reason in said
    assert SECRET not in said


def test_a_zero_that_awaits_its_calculation_is_no_value() -> None:
    cell, asked = "<c r='B2'><f>A1+1</f><v>0</v></c>", "<calcPr fullCalcOnLoad='1'/>"
    assert answer(cell) == "0"
    assert "never calculated" in answer(cell, main=asked)
    assert answer(cell.replace("<v>0", "<v>7"), main=asked) == "7"
    assert read(book(row(2, text("A2", "q"), "<c r='B2' t='str'><f>A1</f><v></v></c>")))[0] == [
        (2, ["q"])
    ]


def test_a_long_number_is_read_in_full_with_a_notice() -> None:
    rows, notices = read(book(row(2, text("A2", "JAN"), "<c r='B2'><v>4901234567894</v></c>")))
    assert rows == [(2, ["JAN", "4901234567894"])]
    ((line, message),) = notices
    assert (line, "more than 11 digits" in message) == (2, True)


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


def test_hidden_rows_are_passed_over_with_a_notice() -> None:
    hidden, flat = "hidden='1'", "ht='0' customHeight='1'"
    rows, notices = read(
        book(
            HEAD,
            row(2, attrs=hidden),
            row(3, attrs=flat),
            row(4),
            row(5, "<c r='A5' s='0'/>", attrs=hidden),
            row(6),
            row(7, attrs=hidden),
            row(9, attrs=hidden),
        )
    )
    assert [number for number, _ in rows] == [1, 4, 6]
    assert [line for line, _ in notices] == [2, 7, 9]
    assert notices[0][1].startswith("rows 2 to 3 are hidden")
    assert notices[2][1].startswith("row 9 is hidden")


@pytest.mark.parametrize("attrs", ["hidden='1'", "width='0'", "hidden='true' width='9'"])
def test_hidden_columns_are_passed_over_with_a_notice(attrs: str) -> None:
    cells = [text(f"{c}1", c) for c in "ABCD"]
    rows, notices = read(
        book(
            row(1, *cells),
            row(2, text("C2", "x")),
            before=f"<cols><col min='2' max='3' {attrs}/></cols>",
        )
    )
    assert rows == [(1, ["A", "", "", "D"])]
    assert notices == [
        (1, "column B is hidden and not read"),
        (1, "column C is hidden and not read"),
    ]


def test_a_cell_merged_downwards_is_repeated_with_a_notice() -> None:
    merges = "<mergeCells><mergeCell ref='A2:A4'/><mergeCell ref='B6:C7'/><mergeCell ref='A9:B9'/></mergeCells>"
    rows, notices = read(
        book(
            HEAD,
            row(2),
            row(3, text("B3", "a3")),
            row(4, "<c r='A4'/>"),
            row(5),
            row(6),
            row(7, text("A7", "q7")),
            row(8),
            row(9, text("A9", "q9")),
            after=merges,
        )
    )
    assert rows[2] == (3, ["q2", "a3"])
    assert [number for number, _ in rows] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert rows[5] == (7, ["q7", "a6"])
    assert rows[7] == (9, ["q9"])
    assert [line for line, _ in notices] == [3, 7]


def test_blank_rows_and_formatted_empty_cells_are_nothing() -> None:
    rows, notices = read(
        book(
            HEAD,
            row(2, "<c r='A2' s='0'/>"),
            "<row r='3'/>",
            row(4, text("A4", " "), text("B4", "")),
            row(7, text("A7", "q"), text("B7", "a"), "<c r='C7' s='0'/>", "<c r='Z7'/>"),
            row(8),
        )
    )
    assert (rows[1:], notices) == ([(7, ["q", "a"]), (8, ["q8", "a8"])], [])


def test_rows_and_cells_without_references_are_counted() -> None:
    cells = "<c t='inlineStr'><is><t>q</t></is></c><c/><c><v>5</v></c>"
    assert read(book(f"<row>{cells}</row><row r='5'>{cells}</row><row>{cells}</row>"))[0] == [
        (number, ["q", "", "5"]) for number in (1, 5, 6)
    ]


@pytest.mark.parametrize(
    "styles",
    [
        f"<styleSheet {MAIN}><fonts><font><color rgb='#00FF00'/></font></fonts><cellXfs/></styleSheet>",
        f"<styleSheet {MAIN}><cellXfs><xf numFmtId='zero'/></cellXfs></styleSheet>",
        "<styleSheet><cellXfs><xf",
        "",
    ],
)
def test_damaged_styles_do_not_hide_the_texts(styles: str) -> None:
    extra = {"theme/theme1": b"<", "comments1": b"", "drawings/drawing1": b"\xff"}
    assert read(book(HEAD, row(2), styles=styles, **extra))[0][1] == (2, ["q2", "a2"])


def test_numbers_of_unknown_format_are_named_where_styles_are_damaged() -> None:
    assert "cell B2" in answer("<c r='B2' s='1'><v>5</v></c>", styles="<")
    assert answer("<c r='B2'><v>5</v></c>", styles="<") == "5"


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


BIG = 1_000_000


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
