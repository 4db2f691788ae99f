"""Files as people have them: dialects, encodings, headers, and JSON in other shapes."""

import gzip
import json
from pathlib import Path

import pytest

from shared.files.rows import Report, validate

JA = "質問,回答\r\n" + "".join(
    f"{i}番の商品の営業時間と返品の期限を教えてください,購入後三十日以内です({i})。\r\n"
    for i in range(10)
)
TW = (
    "instruction,output\n"
    + "請問營業時間是幾點到幾點呢?,平日上午九點到下午六點,週末休息\n".replace(",週末", "。週末")
    * 10
)
PAIRS = [{"instruction": f"問{i}", "output": f"答{i}"} for i in range(3)]
TABLE = "質問,回答\nあ,い\nう,え\n"


def check(folder: Path, body: bytes, filename: str = "upload") -> Report:
    """Validate a file of these bytes."""
    (folder / "raw").write_bytes(body)
    return validate(folder / "raw", filename, folder / "rows.jsonl")


@pytest.mark.parametrize(
    ("body", "name", "rows"),
    [
        (JA.encode("cp932"), "Shift-JIS", 10),
        (JA.encode("euc_jp"), "EUC-JP", 10),
        (JA.encode("iso2022_jp"), "ISO-2022-JP", 10),
        (JA.encode("utf-16-le"), "UTF-16", 10),
        (TW.encode("big5"), "Big5", 10),
    ],
)
def test_an_encoding_that_is_certain_is_taken_and_named(
    tmp_path: Path, body: bytes, name: str, rows: int
) -> None:
    report = check(tmp_path, body, "a.csv")
    assert (report.errors, report.rows) == ([], rows)
    assert name in report.warnings[0].message
    assert "番" in (text := (tmp_path / "rows.jsonl").read_text()) or "營業" in text


def test_an_encoding_that_is_not_certain_is_refused_by_line(tmp_path: Path) -> None:
    body = ("instruction,output\n" + "營業時間,上午九點\n" * 12).encode("big5")
    report = check(tmp_path, body, "a.csv")
    assert report.errors[0].line == 2
    assert "Shift-JIS" not in report.summary()


@pytest.mark.parametrize(
    ("body", "filename"),
    [
        (TABLE.replace("\n", "\r").encode(), "a.csv"),
        (("sep=;\r\n" + TABLE.replace(",", ";")).encode(), "a.csv"),
        (TABLE.replace(",", "|").encode("utf-8-sig"), "upload"),
        (TABLE.encode("utf-16"), "a.txt"),
        ((TABLE + " ,\u3000\n\n,,\n").encode(), "a.csv"),
        (gzip.compress(TABLE.encode(), mtime=0), "a.csv.gz"),
        ("ＱＵＥＳＴＩＯＮ, Answer \nあ,い\nう,え\n".encode(), "a.csv"),
        ("入力,出力\nあ,い\nう,え\n".encode(), "a"),
        (json.dumps(PAIRS[:2], indent=2).encode(), "a.json"),
        (json.dumps(PAIRS[:2]).encode(), "a.jsonl"),
        ("\n".join(json.dumps(row, indent=1) for row in PAIRS[:2]).encode(), "a.jsonl"),
        (b'{"Question": "q", "ANSWER": "a"}\r\n{"question": "r", "answer": "b"}', "a.txt"),
        (
            (b"instruction,input,output\nq, ,a\nr,\xe3\x80\x80,b\n", "a"),
            "a",
        ),
    ],
)
def test_what_a_person_sees_as_two_rows_is_two_rows(
    tmp_path: Path, body: bytes, filename: str
) -> None:
    report = check(tmp_path, body, filename)
    assert (report.errors, report.rows, report.format) == ([], 2, "instruction")


def test_content_parts_are_text_and_empty_system_messages_are_dropped(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": "a"},
    ]
    assert check(tmp_path, json.dumps({"messages": turns}).encode()).ok
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert [turn["content"] for turn in row["messages"]] == ["q?", "a"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("質問,question,回答\na,b,c\n".encode(), "keep one of them"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "another packed file"),
        (gzip.compress(TABLE.encode(), mtime=0)[:-9], "damaged or cut off"),
        (json.dumps({"messages": [{"role": "user", "content": "x"}] * 20000}).encode(), "at most"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "images"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_own_name(
    tmp_path: Path, body: bytes, reason: str
) -> None:
    assert reason in check(tmp_path, body).summary()


def test_sharegpt_is_a_chat_and_preference_pairs_are_not_learnt_from(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    report = check(tmp_path, json.dumps({"conversations": turns}).encode())
    assert (report.errors, report.format) == ([], "chat")
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert "preference pairs" in check(tmp_path, json.dumps(pair).encode()).summary()
