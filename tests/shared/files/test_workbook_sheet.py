"""Cells, rows and columns: what a person sees in Excel is read, or they are told by row."""

import pytest

from tests.shared.files.workbooks import HEAD, MAIN, SECRET, answer, book, read, row, text


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
    areas = "".join(f"<mergeCell ref='{area}'/>" for area in ("A2:A4", "B6:C7", "A9:B9"))
    merges = f"<mergeCells>{areas}</mergeCells>"
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
        f"<styleSheet {MAIN}><fonts><color rgb='#00FF00'/></fonts><cellXfs/></styleSheet>",
        f"<styleSheet {MAIN}><cellXfs><xf numFmtId='zero'/></cellXfs></styleSheet>",
        "<styleSheet><cellXfs><xf",
        "",
    ],
)
def test_damaged_styles_do_not_hide_the_texts(styles: str) -> None:
    extra: dict[str, bytes] = {"theme/theme1": b"<", "comments1": b"", "drawings/drawing1": b"\xff"}
    made = book(HEAD, row(2), styles=styles, **extra)  # type: ignore[arg-type]  # mypy: any name
    assert read(made)[0][1] == (2, ["q2", "a2"])


def test_numbers_of_unknown_format_are_named_where_styles_are_damaged() -> None:
    assert "cell B2" in answer("<c r='B2' s='1'><v>5</v></c>", styles="<")
    assert answer("<c r='B2'><v>5</v></c>", styles="<") == "5"
