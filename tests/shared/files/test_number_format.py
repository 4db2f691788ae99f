"""Numbers, dates and texts are shown as Excel shows them, or refused; never the raw number."""

import pytest

from shared.files.builtin_formats import BUILTIN
from shared.files.date_format import Unrendered
from shared.files.number_format import show_number, show_text

APRIL = 45383  # 1 April 2024, a Monday
REIWA = 43586  # 1 May 2019, the first day of Reiwa


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (42, "0000", "0042"),
        (7, "000-0000", "000-0007"),
        (9012345678, "000-0000-0000", "090-1234-5678"),
        (5, "00,000", "00,005"),
        (0.08, "0%", "8%"),
        (0.085, "0.0%", "8.5%"),
        (0.285, "0%", "29%"),
        (-0.5, "0%", "-50%"),
        (1234567, "#,##0", "1,234,567"),
        (999, "#,##0", "999"),
        (1200, '"¥"#,##0', "¥1,200"),
        (1200, '"\\"#,##0', "¥1,200"),
        (1200, "[$¥-411]#,##0", "¥1,200"),
        (1200.5, "$#,##0.00", "$1,200.50"),
        (9.5, "[$€-407]#,##0.00", "€9.50"),
        (9.5, "#,##0.00 [$€-407]", "9.50 €"),
        (1200, '#,##0"円"', "1,200円"),
        (1200, "0円", "1200円"),
        (12, 'General"個"', "12個"),
        (-1200, "#,##0;[Red](#,##0)", "(1,200)"),
        (-1.5, '0.0;"▲"0.0', "▲1.5"),
        (-3, "0.0", "-3.0"),
        (0, '0;-0;"なし"', "なし"),
        (0, "#", ""),
        (3, ";;;", ""),
        (1.005, "0.00", "1.01"),
        (2.5, "0", "3"),
        (1.5, "0.##", "1.5"),
        (12345678, "0,", "12346"),
        (12345678, '#,##0,,"百万"', "12百万"),
        (1200, '_ "¥"* #,##0_ ;_ "¥"* -#,##0_ ;_ "¥"* "-"_ ;_ @_ ', "¥1,200"),
        (150, '[>=100]"高い";"安い"', "高い"),
        (5, '[>=100]"高い";"安い"', "安い"),
        (5, "[<10]0.0;0", "5.0"),
        (1.25, "# ?/?", "1 1/4"),
        (0.5, "# ?/?", "1/2"),
        (3, "# ?/?", "3"),
        (0.333, "# ??/??", "1/3"),
        (1.375, "# ?/8", "1 3/8"),
        (12345, "0.00E+00", "1.23E+04"),
        (12345, "##0.0E+0", "12.3E+3"),
        (0.00012, "0.0E+0", "1.2E-4"),
        (0.99999, "0.00E+00", "1.00E+00"),
        (45, "@", "45"),
        (0.1 + 0.2, "General", "0.3"),
        (1 / 3, "General", "0.333333333"),
        (-1.5, "General", "-1.5"),
        (12345678901, "General", "12345678901"),
        (123456789012, "General", "1.23457E+11"),
        (1e15, "General", "1E+15"),
        (0.0000123456, "General", "1.23456E-05"),
        (99999999999.5, "General", "1E+11"),
    ],
)
def test_a_number_looks_as_in_excel(value: float, code: str, shown: str) -> None:
    assert show_number(value, code) == shown


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (APRIL, "yyyy/m/d", "2024/4/1"),
        (APRIL, BUILTIN[14], "2024/4/1"),
        (APRIL, 'yyyy"年"m"月"d"日"(aaa)', "2024年4月1日(月)"),
        (APRIL, "aaaa", "月曜日"),
        (APRIL, "[$-409]d-mmm-yy", "1-Apr-24"),
        (APRIL, "[$-F800]dddd, mmmm dd, yyyy", "Monday, April 01, 2024"),
        (APRIL, BUILTIN[27], "R6.4.1"),
        (APRIL, BUILTIN[28], "令和6年4月1日"),
        (APRIL, BUILTIN[58], "令和6年4月1日"),
        (REIWA, BUILTIN[28], "令和1年5月1日"),
        (REIWA, '[$-ja-JP-x-gannen]ggge"年"m"月"d"日"', "令和元年5月1日"),
        (REIWA - 1, "[$-411]gge.mm.dd", "平31.04.30"),
        (9496, "[$-411]ggge", "大正14"),
        (0.375, "h:mm", "9:00"),
        (0.375, "hh:mm:ss", "09:00:00"),
        (0.375, BUILTIN[32], "9時00分"),
        (1.25, "[h]:mm", "30:00"),
        (1.25, "[mm]:ss", "1800:00"),
        (0.75, "h:mm AM/PM", "6:00 PM"),
        (0, "h:mm AM/PM", "12:00 AM"),
        (APRIL + 0.5, "yyyy-mm-dd hh:mm", "2024-04-01 12:00"),
        (APRIL + 0.999999999, "yyyy/m/d h:mm", "2024/4/2 0:00"),
        (0.5 + 1.234 / 86400, "mm:ss.0", "00:01.2"),
        (59, "yyyy/m/d", "1900/2/28"),
        (60, "yyyy/m/d", "1900/2/29"),
        (61, "yyyy/m/d", "1900/3/1"),
    ],
)
def test_a_date_looks_as_in_excel(value: float, code: str, shown: str) -> None:
    assert show_number(value, code) == shown


def test_the_1904_system_begins_four_years_later() -> None:
    assert show_number(APRIL - 1462, "yyyy/m/d", date1904=True) == "2024/4/1"
    assert show_number(1.25, "[h]:mm", date1904=True) == "30:00"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (-1, "yyyy/m/d"),
        (3e6, "h:mm"),
        (APRIL, "[$-407]mmmm"),
        (APRIL, "ggge"),
        (APRIL, "bbbb"),
        (5, "[DBNum1]0"),
        (5, "qqq0"),
        (-5, "[<10]0;0.0"),
        (5, "0;0;0;0;0"),
        (5, "0" * 2000),
        (1e300, "0"),
    ],
)
def test_what_is_not_known_is_refused(value: float, code: str) -> None:
    with pytest.raises(Unrendered):
        show_number(value, code)


@pytest.mark.parametrize(
    ("text", "code", "shown"),
    [
        ("山田", '@"様"', "山田様"),
        ("a", '0;0;0;"x"@', "xa"),
        ("a", "0;0;0;", ""),
        ("a", "0.00", "a"),
        ("a", "@", "a"),
    ],
)
def test_a_text_follows_its_section(text: str, code: str, shown: str) -> None:
    assert show_text(text, code) == shown
