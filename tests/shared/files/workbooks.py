"""Workbooks written by hand, so that tests can hold what no library would write."""

import io
import zipfile

import pytest

from shared.files.forms import BadRow, Unreadable
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
