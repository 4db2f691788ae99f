"""Training files: what is accepted, what each error says, and that nothing can crash the reader."""

import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from shared.files import readers, workbook_package, workbook_sheet
from shared.files.forms import blank
from shared.files.rows import MAX_PROBLEMS, Report, validate

SECRET = "社外秘"


def check(folder: Path, body: bytes, filename: str = "data.jsonl") -> tuple[Report, list[Any]]:
    """Validate a file of these bytes; return the report and the normalised rows."""
    (folder / "raw").write_bytes(body)
    report = validate(folder / "raw", filename, folder / "rows.jsonl")
    rows = (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return report, [json.loads(row) for row in rows]


def jsonl(*rows: object) -> bytes:
    """Write rows as JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def xlsx(*rows: list[Any]) -> bytes:
    """Write rows as a workbook."""
    book = Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


def chat(*turns: dict[str, Any]) -> bytes:
    """Write one chat row."""
    return jsonl({"messages": list(turns)})


PAIR = [
    {"role": "user", "content": "返品できますか"},
    {"role": "assistant", "content": "三十日以内なら", "weight": 1},
]


@pytest.mark.parametrize(
    ("filename", "body"),
    [
        ("a.jsonl", jsonl({"instruction": "返品できますか", "output": "三十日以内なら"})),
        ("a.jsonl", jsonl({"prompt": "返品できますか", "completion": "三十日以内なら"})),
        ("a.jsonl", jsonl({"messages": PAIR})),
        ("a.jsonl", b"\xef\xbb\xbf" + jsonl({"messages": PAIR})),
        ("a.csv", "instruction,output\n返品できますか,三十日以内なら\n".encode()),
        ("a.csv", "Prompt;Completion\r\n返品できますか;三十日以内なら\r\n".encode("utf-8-sig")),
        ("a.tsv", "output\tinstruction\n三十日以内なら\t返品できますか".encode()),
        ("a.csv", '"prompt","completion"\n"返品できますか","三十日以内なら"\n'.encode()),
        ("A.XLSX", xlsx(["instruction", "output"], ["返品できますか", "三十日以内なら"])),
        ("a.xlsx", xlsx(["messages"], [json.dumps(PAIR)])),
    ],
)
def test_each_form_becomes_the_same_row(tmp_path: Path, filename: str, body: bytes) -> None:
    report, rows = check(tmp_path, body, filename)
    assert report.errors == []
    assert report.rows == 1
    assert [row["messages"] for row in rows] == [PAIR]


def test_an_input_follows_its_instruction_and_lines_are_the_users(tmp_path: Path) -> None:
    body = 'instruction,input,output\n"訳して\n短く",犬,dog\n\n訳して,,x\n'.encode()
    report, rows = check(tmp_path, body, "a.csv")
    assert report.ok
    assert [row["line"] for row in rows] == [2, 5]
    assert rows[0]["messages"][0]["content"] == "訳して\n短く\n\n犬"
    assert rows[1]["messages"][0]["content"] == "訳して"


def test_numbers_in_a_workbook_are_text_and_blank_rows_are_passed_over(tmp_path: Path) -> None:
    report, rows = check(
        tmp_path, xlsx(["prompt", "completion"], ["内線", 204.0], [], ["q", 1.5]), "a.xlsx"
    )
    assert report.ok
    assert [row["line"] for row in rows] == [2, 4]
    assert [row["messages"][1]["content"] for row in rows] == ["204", "1.5"]


def test_developer_is_system_and_weight_defaults_to_one(tmp_path: Path) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "developer", "content": "短く"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "assistant", "content": "c", "name": "x", "tool_calls": None},
    ]
    _, rows = check(tmp_path, chat(*turns))
    assert rows[0]["messages"] == [
        {"role": "system", "content": "短く"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "assistant", "content": "c", "weight": 1},
    ]


USER, ANSWER = {"role": "user", "content": SECRET}, {"role": "assistant", "content": SECRET}


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        (b'{"a": \n', 1, "not valid JSON"),
        (b"[1]\n", 1, "not a JSON object"),
        (jsonl(5), 1, "not a JSON object"),
        (jsonl({"texts": SECRET}), 1, 'expected "messages"'),
        (jsonl({"messages": []}), 1, "at least one message"),
        (jsonl({"messages": [SECRET]}), 1, "message 1 is not an object"),
        (chat(USER), 1, "no assistant message"),
        (chat(USER, ANSWER | {"weight": 0}), 1, "no assistant message"),
        (chat(USER, ANSWER | {"weight": 2}), 1, '"weight" must be 0 or 1'),
        (chat(USER, ANSWER | {"weight": True}), 1, '"weight" must be 0 or 1'),
        (chat(USER | {"weight": 1}, ANSWER), 1, "only assistant messages"),
        (chat({"role": SECRET, "content": "x"}), 1, '"role" must be one of'),
        (chat({"content": "x"}), 1, '"role" must be one of'),
        (chat({"role": "tool", "content": "x"}), 1, '"role" must be one of'),
        (chat(USER, ANSWER | {"content": " \n"}), 1, '"content" is empty'),
        (chat(USER, ANSWER | {"content": None}), 1, '"content" must be text'),
        (chat(USER, ANSWER | {"tool_calls": [{}]}), 1, "tool calls"),
        (jsonl({"messages": PAIR, "tools": [{}]}), 1, '"tools" are not supported'),
        (jsonl({"instruction": SECRET, "output": ""}), 1, '"output" is empty'),
        (jsonl({"prompt": SECRET, "completion": 5}), 1, '"completion" must be text'),
        (jsonl({"messages": PAIR}, {"prompt": "a", "completion": "b"}), 2, "chat rows"),
        (b'{"prompt": "\\ud83d", "completion": "x"}', 1, "surrogate"),
        (b'{"prompt": "\\u0000", "completion": "x"}', 1, "NUL"),
        (b"[" * 100_000, 1, "does not end"),
        (b'{"a":' * 100_000, 1, "nesting"),
        (b'{"a":' + b"1" * 5000 + b"}", 1, "number is too long"),
        (jsonl({"messages": PAIR}) + b"\x83\x65\x83\x58\n", 2, "Shift-JIS; save the file as UTF-8"),
        (jsonl({"messages": PAIR}) + b"ab\xff\xff\n", 2, "byte 3 (0xFF) is not UTF-8; save"),
        ("{}".encode("utf-16"), 1, 'expected "messages"'),
        (b"", 1, "no rows"),
        (b"\n\n", 1, "no rows"),
        (xlsx(["prompt", "completion"]), 1, "no rows"),
        (b'{"a": "' + b"x" * readers.MAX_LINE_BYTES + b'"}\n', 1, "longer than 4 MiB"),
    ],
)
def test_each_fault_is_named_with_its_line_and_without_the_rows_text(
    tmp_path: Path, body: bytes, line: int, reason: str
) -> None:
    report, _ = check(tmp_path, body)
    (error,) = report.errors
    assert (error.line, reason in error.message) == (line, True), error
    assert SECRET not in report.model_dump_json()


@pytest.mark.parametrize(
    ("filename", "body", "line", "reason"),
    [
        ("a.csv", "題名,作者\na,b\n".encode(), 1, "header is not understood"),
        ("a.csv", "質問,答え\n".encode("cp932"), 1, "Shift-JIS"),
        ("a.csv", b"prompt,completion\na,b,c\n", 2, "more cells than the header"),
        ("a.csv", b"prompt,completion\nonly\n", 2, '"completion" is empty'),
        ("a.csv", b'prompt,completion\n"a,b\n', 2, "not valid CSV"),
        ("a.csv", b"prompt,completion\n" + b"a" * 200_000 + b",b\n", 2, "not valid CSV"),
        ("a.csv", b"messages\n{]\n", 2, "valid JSON"),
        ("a.csv", b"", 1, "header is not understood"),
        ("a.xlsx", b"", 1, "damaged"),
        ("a.xlsx", b"PK\x03\x04", 1, "damaged"),
        ("a.xlsx", b"prompt,completion", 1, "damaged"),
        ("a.xlsx", xlsx(), 1, "empty"),
        ("a.xlsx", xlsx(["x", "y"]), 1, "header is not understood"),
        ("a.xlsx", xlsx(["prompt", "completion"], ["q", None]), 2, '"completion" is empty'),
    ],
)
def test_tables_name_the_row(
    tmp_path: Path, filename: str, body: bytes, line: int, reason: str
) -> None:
    report, _ = check(tmp_path, body, filename)
    (error,) = report.errors
    assert (error.line, reason in error.message) == (line, True), error


def test_fifty_errors_are_recorded_and_all_are_counted(tmp_path: Path) -> None:
    report, _ = check(tmp_path, b"{}\n" * 1000)
    assert len(report.errors) == MAX_PROBLEMS
    assert report.truncated
    assert report.summary(2).startswith("Line 1: ")
    assert report.error_count == 1000
    assert report.summary(2).endswith("And 998 more.")


def test_good_rows_are_kept_beside_bad_ones(tmp_path: Path) -> None:
    good = {"messages": PAIR}
    report, rows = check(tmp_path, jsonl(good, {}, good | {"x": 1}))
    assert [error.line for error in report.errors] == [2]
    assert [row["line"] for row in rows] == [1, 3]


def test_doubtful_rows_are_warned_of(tmp_path: Path) -> None:
    row = {"messages": [*PAIR, {"role": "user", "content": "?"}]}
    report, _ = check(tmp_path, jsonl({"messages": PAIR}, {"messages": PAIR}, row | {"id": 7}))
    assert report.ok
    assert [str(warning) for warning in report.warnings] == [
        "Line 2: the same as line 1",
        "Line 3: what follows the last assistant message is not learnt",
        "Line 3: columns or keys that Tailor does not use are ignored",
    ]


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", b"\x00" * (workbook_package.MAX_SHARED_BYTES + 1))
    report, _ = check(tmp_path, target.getvalue(), "a.xlsx")
    assert "too large unpacked" in report.errors[0].message


def test_a_row_number_beyond_excels_limit_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook_sheet, "MAX_ROWS", 1000)
    source = io.BytesIO(xlsx(["prompt", "completion"], ["q", "a"]))
    target = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            body = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                body = body.replace(b'r="2"', b'r="9000000000"')
            new.writestr(name, body)
    report, _ = check(tmp_path, target.getvalue(), "a.xlsx")
    assert "numbered beyond" in report.errors[0].message


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "raw").open("wb") as file:
        for number in range(3_000):
            file.write(jsonl({"prompt": f"{number}" + "あ" * 1000, "completion": "い"}))
    tracemalloc.start()
    report = validate(tmp_path / "raw", "a.jsonl", tmp_path / "rows.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.rows == 3_000
    assert peak < (tmp_path / "raw").stat().st_size / 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)
KEYS = st.sampled_from(["messages", "instruction", "input", "output", "prompt", "completion"])
TURNS = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "x"]) | JSON,
        "content": st.text() | JSON,
    },
    optional={"weight": st.sampled_from([0, 1, 2, None]) | JSON, "tool_calls": JSON},
)
ROW = st.dictionaries(KEYS, st.text() | st.lists(TURNS, max_size=3) | JSON, max_size=4)
NAMES = st.sampled_from(["a.jsonl", "a.csv", "a.tsv", "a.xlsx", "a", ""])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary(max_size=400), filename=NAMES)
@example(body=b"prompt,completion\r\ra", filename="a.csv")
def test_no_bytes_crash_the_reader_and_every_error_has_a_line(
    tmp_path: Path, body: bytes, filename: str
) -> None:
    report, rows = check(tmp_path, body, filename)
    assert_sound(report, rows, body)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
@given(written=st.lists(ROW, max_size=4))
@example(written=[{"prompt": "a", "completion": "b\x85\u2028c"}])
def test_every_row_is_either_normalised_or_named(
    tmp_path: Path, written: list[dict[str, Any]]
) -> None:
    body = "".join(json.dumps(row) + "\n" for row in written).encode()
    report, rows = check(tmp_path, body)
    assert_sound(report, rows, body)
    named = {error.line for error in report.errors} | {row["line"] for row in rows}
    passed_over = {
        line for line, row in enumerate(written, 1) if row and all(map(blank, row.values()))
    }
    assert named | passed_over == set(range(1, len(written) + 1)) or not written


def assert_sound(report: Report, rows: list[Any], body: bytes) -> None:
    """Check what must hold of any report."""
    lines = body.count(b"\n") + body.count(b"\r") + 2
    assert all(1 <= error.line <= lines for error in report.errors)
    assert report.rows == len(rows)
    assert report.ok == (not report.errors)
    assert rows or not report.ok
    for row in rows:
        assert any(turn.get("weight") == 1 for turn in row["messages"])
        assert all(turn["content"].strip() for turn in row["messages"])
