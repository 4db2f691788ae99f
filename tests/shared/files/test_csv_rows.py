"""CSV in any dialect that spreadsheet programs write."""

from pathlib import Path

import pytest

from tests.shared.files.test_encoding import check

ROWS = [("返品できますか", "はい、\n三十日以内なら"), ('the "best" one', "a, b; c\td|e")]


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def table(delimiter: str, end: str, header: str = "instruction,output") -> str:
    lines = [delimiter.join(header.split(",")), *(delimiter.join(map(quoted, r)) for r in ROWS)]
    return end.join(lines) + end


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_dialect_is_read(tmp_path: Path, delimiter: str, end: str, codec: str) -> None:
    body = table(delimiter, end).encode(codec)
    for name in ("faq.csv", "faq.txt", "upload", "upload.jsonl"):
        report, read = check(tmp_path, body, name)
        assert (report.errors, read) == ([], ROWS), name


@pytest.mark.parametrize("hint", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;"])
def test_the_hint_of_the_separator_is_taken(tmp_path: Path, hint: str) -> None:
    body = (hint + "\r\n" + table(";", "\r\n")).encode()
    report, read = check(tmp_path, body, "faq.csv")
    assert (report.errors, read) == ([], ROWS)


@pytest.mark.parametrize("mark", ["\t", "|", "^"])
def test_the_hint_may_name_any_separator(tmp_path: Path, mark: str) -> None:
    report, read = check(tmp_path, f"sep={mark}\n{table(mark, chr(10))}".encode(), "faq.csv")
    assert (report.errors, read) == ([], ROWS)


@pytest.mark.parametrize(
    "blank",
    ["", " ", "\x1a", "\u3000", "\xa0", ",", " , ", "\u3000,\xa0", '"",""', "NaN,nan", ",,,"],
)
def test_blank_rows_are_passed_over(tmp_path: Path, blank: str) -> None:
    body = f"{blank}\ninstruction,output\n{blank}\na,b\n{blank}\n{blank}\nc,d\n{blank}".encode()
    report, read = check(tmp_path, body, "faq.csv")
    assert (report.errors, read) == ([], [("a", "b"), ("c", "d")])


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        ("instruction,output\na,b\nc\n", 3, '"output" is empty'),
        ("instruction,output\na,b,c\n", 2, "more cells than the header's 2 columns; a cell"),
        ('instruction,output\na,b\n"c,d\ne,f\n', 3, "never closed"),
        ('instruction,output\n"a "b" c",d\n', 2, "must be written twice"),
        ("instruction,instruction,output\na,b,c\n", 1, '"instruction" is there twice'),
        ("質問,問い合わせ,回答\na,b,c\n", 1, "mean the same"),
        ("質問,備考\na,b\n", 1, "nothing for the answer"),
        ("備考,回答\na,b\n", 1, "nothing for the question"),
        ("id,備考\na,b\n", 1, 'expected "messages"'),
        ("messages\n\"[{'role': 'user', 'content': 'a'}]\"\n", 2, "as Python shows"),
        ("messages\nhello\n", 2, "does not hold valid JSON"),
    ],
)
def test_a_broken_table_is_named_with_its_line(
    tmp_path: Path, body: str, line: int, reason: str
) -> None:
    report, _ = check(tmp_path, body.encode(), "faq.csv")
    (error,) = report.errors
    assert (error.line, reason in error.message) == (line, True), error


def test_reading_goes_on_after_a_row_with_a_bad_quotation_mark(tmp_path: Path) -> None:
    body = b'instruction,output\n"a "b" c",d\ne,f\n"g "h" i",j\n'
    report, read = check(tmp_path, body, "faq.csv")
    assert [error.line for error in report.errors] == [2, 4]
    assert read == [("e", "f")]


def test_columns_that_are_not_used_are_told(tmp_path: Path) -> None:
    report, read = check(tmp_path, "番号,質問,回答,担当\n1,a,b,佐藤\n".encode(), "faq.csv")
    assert [str(warning) for warning in report.warnings] == [
        'Line 1: columns or keys that Tailor does not use are ignored: "番号", "担当"'
    ]
    assert read == [("a", "b")]


def test_messages_as_json_in_a_cell(tmp_path: Path) -> None:
    cell = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'
    report, read = check(tmp_path, f"id,messages\n1,{quoted(cell)}\n".encode(), "faq.csv")
    assert (report.errors, read, report.format) == ([], [("a", "b")], "chat")


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("質問,回答", "instruction"),
        ("指示,出力", "instruction"),
        ("問い合わせ,返信", "instruction"),
        ("問い合わせ,回答", "instruction"),
        ("問,答", "instruction"),
        ("質問文,回答文", "instruction"),
        ("プロンプト,応答", "instruction"),
        ("質問（必須）,回答:", "instruction"),
        ("Question,Answer", "instruction"),
        ("QUERY,Response", "instruction"),
        ("Q,A", "instruction"),
        ("Ｑ,Ａ", "instruction"),
        ("input,output", "instruction"),
        ("入力,出力", "instruction"),
        ("User,Assistant", "instruction"),
        (" Instruction ,\u3000Response\u3000", "instruction"),
        ("prompt,response", "instruction"),
        ("question,completion", "instruction"),
        ("Prompt,Completion", "prompt"),
        ("ﾌﾟﾛﾝﾌﾟﾄ,補完", "prompt"),
    ],
)
def test_headers_under_their_usual_names(tmp_path: Path, header: str, form: str) -> None:
    report, read = check(tmp_path, table(",", "\n", header).encode(), "faq.csv")
    assert (report.errors, read, report.format) == ([], ROWS, form)


@pytest.mark.parametrize(
    "header", ["instruction,input,output", "指示,入力,出力", "question,context,answer"]
)
@pytest.mark.parametrize("none", ["", " ", "\u3000", "NaN"])
def test_an_input_beside_an_instruction_is_its_input(
    tmp_path: Path, header: str, none: str
) -> None:
    body = f"{header}\n訳して,犬,dog\n訳して,{none},x\n".encode()
    report, read = check(tmp_path, body, "faq.csv")
    assert (report.errors, read) == ([], [("訳して\n\n犬", "dog"), ("訳して", "x")])
