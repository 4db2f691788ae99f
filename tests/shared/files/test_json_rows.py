"""JSON however people lay it out, packed or not, and rows made for other tools."""

import gzip
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.files import source
from tests.shared.files import texts
from tests.shared.files.test_encoding import check
from tests.shared.files.test_rows import assert_sound, chat, jsonl
from tests.shared.files.test_rows import check as check_rows

ROWS = [("返品できますか", "はい"), ('a "{[" b', "]}, \\ c"), ("x\ny", "z")]
OBJECTS: list[dict[str, Any]] = [{"prompt": a, "completion": b} for a, b in ROWS]


def packed(data: bytes) -> bytes:
    """Pack into the same bytes every time: parameters name tests."""
    return gzip.compress(data, mtime=0)


def pretty(indent: int | str) -> str:
    return "\n".join(json.dumps(row, indent=indent, ensure_ascii=False) for row in OBJECTS)


LAYOUTS = {
    "lines": "\n".join(map(json.dumps, OBJECTS)),
    "lines-cr": "\r".join(map(json.dumps, OBJECTS)),
    "blank-lines": "\n\n \r\n".join(map(json.dumps, OBJECTS)),
    "pretty": pretty(2),
    "pretty-tabs": pretty("\t") + "\n",
    "pretty-crlf": pretty(4).replace("\n", "\r\n"),
    "pretty-and-lines": pretty(2) + "\n",
    "pretty-with-commas": ",\n".join(json.dumps(row, indent=2) for row in OBJECTS),
    "broken-after-a-comma": "\n".join(
        f'{{"prompt": {json.dumps(a)},\n "completion": {json.dumps(b)}}}' for a, b in ROWS
    ),
    "array": json.dumps(OBJECTS),
    "array-pretty": json.dumps(OBJECTS, indent=2),
    "array-of-lines": "[\n" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]\n",
    "array-cr": json.dumps(OBJECTS, indent=1).replace("\n", "\r"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "upload", "a.csv"])
def test_objects_are_read_however_they_are_laid_out(
    tmp_path: Path, layout: str, codec: str, name: str
) -> None:
    report, read = check(tmp_path, LAYOUTS[layout].encode(codec), name)
    assert (report.errors, read) == ([], ROWS)


@pytest.mark.parametrize("layout", ["pretty", "pretty-crlf", "array-pretty", "array-of-lines"])
def test_a_rows_line_is_that_of_its_brace(tmp_path: Path, layout: str) -> None:
    body = LAYOUTS[layout]
    _, rows = check_rows(tmp_path, body.encode(), "a.json")
    assert [body.splitlines()[row["line"] - 1].strip()[0] for row in rows] == ["{"] * 3


@pytest.mark.parametrize(
    ("body", "lines", "reason"),
    [
        ('{"prompt": "a", "completion": "b"', [1], "not valid JSON"),
        ('{\n"prompt": "a",\n', [1], "does not end"),
        ('{\n"prompt": "a"\n"completion": "b"\n}', [1], "not valid JSON"),
        ('{\n"prompt": "a",\n{"prompt": "a", "completion": "b"}', [1], "does not end"),
        ('{"prompt": "a", "completion": "b"},\n', [1], "a comma follows"),
        ('{"prompt": "a"}{"prompt": "b"}\n', [1], "more follows the object"),
        ('[{"prompt": "a", "completion": "b"}', [1], "JSON array does not end"),
        ('[{"prompt": "a", "completion": "b"}] x', [1], "more follows the end"),
        ('[\n{"prompt": "a", "completion": "b"},\n5]', [3], "not a JSON object"),
        ('[\n{"prompt": "a", "completion": "b"},\n[1]]', [3], "not a JSON object"),
        ('[\n{"prompt": "a", "completion": "b"},\n{"x" 1}]', [3], "not valid JSON"),
        ('[{"prompt": "a", "completion": "b"}, {"x": 1}]', [1], "row 2 of this line: expected"),
        ('[{"prompt": "a", "completion": "b"}}]', [1], "closes that was never opened"),
        ('[{"prompt": "a\n", "completion": "b"}]', [1], "is a quotation mark not closed"),
        ("hello\nworld", [1], "neither JSON nor a CSV file"),
    ],
)
def test_a_broken_layout_is_named_once_with_its_line(
    tmp_path: Path, body: str, lines: list[int], reason: str
) -> None:
    report, _ = check(tmp_path, body.encode(), "upload")
    assert [error.line for error in report.errors] == lines
    assert reason in report.errors[0].message


def test_an_array_on_one_line_may_be_longer_than_any_line(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i} " + "あ" * 5000, "completion": "い"} for i in range(400)]
    body = json.dumps(rows, ensure_ascii=False).encode()
    assert len(body) > source.MAX_LINE_BYTES
    report, read = check(tmp_path, body, "a.json")
    assert (report.errors, len(read)) == ([], 400)


def test_an_item_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    long = {"prompt": "a", "completion": ["b" * 1000] * (source.MAX_LINE_BYTES // 1000)}
    body = json.dumps([OBJECTS[0], long, OBJECTS[1]], indent=1).encode()
    report, read = check(tmp_path, body, "a.json")
    assert [(error.line, error.message) for error in report.errors] == [(6, "longer than 4 MiB")]
    assert read == ROWS[:2]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.gz", "upload"])
def test_gzip_is_unpacked_whatever_it_holds(tmp_path: Path, name: str) -> None:
    for body in (LAYOUTS["lines"], LAYOUTS["array"], 'question,answer\n"a","b"\n'):
        report, read = check(tmp_path, packed(body.encode()), name)
        assert report.errors == []
        assert read in (ROWS, [("a", "b")])


def test_a_packed_file_in_shift_jis_is_read(tmp_path: Path) -> None:
    from tests.shared.files.test_encoding import as_csv  # noqa: PLC0415  one use

    body = packed(as_csv(texts.JAPANESE).encode("cp932"))
    report, read = check(tmp_path, body, "faq.csv.gz")
    assert (report.errors, read) == ([], texts.JAPANESE)


def zipped(name: str, body: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), body)
    return target.getvalue()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (packed(packed(b"{}")), "gzip within gzip"),
        (packed(zipped("a.jsonl", b"{}")), "within gzip"),
        (packed(b" " * (65 * 2**20)), "more than 64 MiB"),
        (packed(LAYOUTS["lines"].encode())[:-12], "damaged"),
        (b"\x1f\x8b\x08" + b"\xff" * 50, "damaged"),
        (zipped("a.jsonl", b"{}"), "zip"),
        (b"PAR1....", "Parquet"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
    ],
)
def test_other_packages_are_refused_by_their_own_name(
    tmp_path: Path, body: bytes, reason: str
) -> None:
    report, _ = check(tmp_path, body, "train.jsonl")
    assert report.errors[0].line == 1
    assert reason in report.errors[0].message


def test_sharegpt_conversations(tmp_path: Path) -> None:
    row = {
        "id": 7,
        "system": "短く",
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "gpt", "value": "b"},
            {"from": "user", "value": "c"},
            {"from": "chatgpt", "value": "d"},
            {"from": "user", "value": "e"},
            {"from": "bing", "value": "f"},
            {"from": "user", "value": "g"},
            {"from": "bard", "value": "h"},
        ],
    }
    report, rows = check_rows(tmp_path, jsonl(row))
    assert (report.errors, report.format) == ([], "chat")
    assert [turn["content"] for turn in rows[0]["messages"]] == ["短く", *"abcdefgh"]
    assert [turn["role"] for turn in rows[0]["messages"]] == ["system", *["user", "assistant"] * 4]


def test_content_parts_are_joined_as_the_gateway_joins_them(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": None}]
    body = chat({"role": "user", "content": parts}, {"role": "assistant", "content": parts})
    report, rows = check_rows(tmp_path, body)
    assert report.errors == []
    assert [turn["content"] for turn in rows[0]["messages"]] == ["ab", "ab"]


@pytest.mark.parametrize("content", ["", " \n", None, "\u3000", []])
def test_an_empty_system_message_is_dropped(tmp_path: Path, content: object) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    report, rows = check_rows(tmp_path, chat({"role": "system", "content": content}, *turns))
    assert report.errors == []
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("none", ["", " ", "\n", "\u3000", "\xa0", None, float("nan"), "NaN"])
def test_a_blank_input_is_none(tmp_path: Path, none: object) -> None:
    body = jsonl({"instruction": "a", "input": none, "output": "b"})
    report, read = check(tmp_path, body, "a.jsonl")
    assert (report.errors, read) == ([], [("a", "b")])


@pytest.mark.parametrize(
    "row",
    [
        {"質問": "a", "回答": "b"},
        {"Question": "a", "ANSWER": "b", "id": 4},
        {"instruction": "a", "input": "", "output": "b", "response": "c"},
        {"q": "a", "a": "b"},
    ],
)
def test_keys_have_the_names_of_columns(tmp_path: Path, row: dict[str, object]) -> None:
    report, read = check(tmp_path, jsonl(row), "a.jsonl")
    assert (report.errors, read, report.format) == ([], [("a", "b")], "instruction")


TURN = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (jsonl({"prompt": "a", "chosen": "b", "rejected": "c"}), "preferences (DPO)"),
        (jsonl({"input": {}, "preferred_output": [], "non_preferred_output": []}), "DPO"),
        (jsonl({"prompt": "a", "completion": "b", "label": False}), "KTO"),
        (jsonl({"system": "a", "messages": [TURN]}), "form of Anthropic"),
        (jsonl({"contents": [{"role": "user", "parts": [{"text": "a"}]}]}), "form of Gemini"),
        (jsonl({"custom_id": "1", "method": "POST", "body": {}}), "line of a batch"),
        (jsonl({"data": [{"prompt": "a", "completion": "b"}]}), "upload the list itself"),
        (jsonl({"role": "user", "content": "a"}), "one message and not a row"),
        (jsonl({"instruction": "a", "output": "b", "history": [["c", "d"]]}), '"history"'),
        (jsonl({"text": "a"}), 'plain text ("text")'),
        (b"{'prompt': 'a', 'completion': 'b'}", "straight quotes"),
        ("{“prompt”: “a”}".encode(), "straight quotes"),
        (jsonl({"instruction": "a", "question": "b", "answer": "c"}), "mean the same"),
        (jsonl({"prompt": "a", "completion": float("nan")}), '"completion" is NaN'),
        (jsonl({"prompt": "a", "completion": float("inf")}), '"completion" is Infinity'),
        (jsonl({"messages": [TURN] * 1001}), "1,001 messages; a row may have 1,000"),
        (chat({"role": "tool", "content": "x"}, TURN), "tools are not supported"),
        (chat({"from": "observation", "value": "x"}, TURN), "tools are not supported"),
        (chat({"role": "user", "content": [{"type": "image_url"}]}), "images (image_url)"),
        (chat({"role": "user", "content": [{"type": "input_audio"}]}), "audio (input_audio)"),
        (chat({"role": "user", "content": [{"type": "file"}]}), "files (file)"),
        (chat({"role": "user", "content": [{"type": "tool_result"}]}), "tool calls (tool_result)"),
        (chat({"role": "user", "content": ["x"]}), 'must have the type "text"'),
        (chat({"role": "user", "content": [{"type": "text"}]}), "must be text"),
        (chat({"role": "user", "content": []}, TURN), '"content" is empty'),
    ],
)
def test_foreign_rows_are_refused_in_one_sentence(tmp_path: Path, body: bytes, reason: str) -> None:
    report, _ = check(tmp_path, body, "a.jsonl")
    (error,) = report.errors
    assert (error.line, reason in error.message) == (1, True), error


def test_rows_that_hold_nothing_are_passed_over_and_told_once(tmp_path: Path) -> None:
    nothing = {"prompt": None, "completion": float("nan")}
    report, read = check(tmp_path, jsonl(nothing, OBJECTS[0], nothing), "a.jsonl")
    assert (report.errors, read) == ([], ROWS[:1])
    assert [str(w) for w in report.warnings] == ["Line 1: rows that hold nothing are passed over"]


def test_a_row_that_begins_with_the_assistant_is_read(tmp_path: Path) -> None:
    report, _ = check_rows(tmp_path, chat(TURN, {"role": "user", "content": "a"}, TURN))
    assert report.errors == []


VALID = [
    *(body.encode() for body in LAYOUTS.values()),
    LAYOUTS["pretty"].encode("utf-16"),
    'question,answer\r\n"a ""b"" c","d\ne"\r\n返品,はい\r\n'.encode(),
    "sep=;\r質問;回答\ra;b\r".encode("cp932"),
    packed(LAYOUTS["lines"].encode()),
    jsonl({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}),
]
ENDINGS = st.sampled_from(["a.jsonl", "a.csv", "a.json", "a.csv.gz", "upload", ""])
CUTS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 8), st.binary(max_size=4)), max_size=4
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300
)
@given(body=st.sampled_from(VALID), cuts=CUTS, filename=ENDINGS)
@example(body=VALID[0], cuts=[(0, 0, b'[{"a":["')], filename="a.json")
def test_a_damaged_file_never_raises(
    tmp_path: Path, body: bytes, cuts: list[tuple[int, int, bytes]], filename: str
) -> None:
    for start, length, new in cuts:
        body = body[:start] + new + body[start + length :]
    report, rows = check_rows(tmp_path, body, filename)
    if not body.startswith(b"\x1f\x8b"):
        assert_sound(report, rows, body)


def test_text_is_the_same_however_the_blocks_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    for layout in LAYOUTS.values():
        monkeypatch.setattr(source, "BLOCK", chance.randint(1, 40))
        report, read = check(tmp_path, (" " * 3 + layout).encode(), "a.json")
        assert (report.errors, read) == ([], ROWS)
