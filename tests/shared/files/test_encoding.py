"""Files in the encodings of many countries: read right and said, or refused by line."""

import json
import random
from pathlib import Path

import pytest

from shared.files.rows import Report, validate
from tests.shared.files import texts
from tests.shared.files.texts import Pairs


def check(folder: Path, body: bytes, filename: str) -> tuple[Report, Pairs]:
    """Validate a file; return its report, and question and answer of each row."""
    (folder / "raw").write_bytes(body)
    report = validate(folder / "raw", filename, folder / "rows.jsonl")
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    rows = [json.loads(line)["messages"] for line in lines]
    return report, [(row[0]["content"], row[1]["content"]) for row in rows]


def as_csv(pairs: Pairs, header: str = "instruction,output", end: str = "\r\n") -> str:
    return header + end + "".join(f'"{ask}","{answer}"{end}' for ask, answer in pairs)


def as_jsonl(pairs: Pairs) -> str:
    rows = [{"prompt": ask, "completion": answer} for ask, answer in pairs]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


KNOWN = [
    ("cp932", texts.JAPANESE, "Shift-JIS"),
    ("shift_jis", texts.JAPANESE, "Shift-JIS"),
    ("euc_jp", texts.JAPANESE, "EUC-JP"),
    ("iso2022_jp", texts.JAPANESE, "ISO-2022-JP"),
    ("big5", texts.TAIWANESE, "Big5"),
    ("gbk", texts.CHINESE, "GB18030"),
    ("gb18030", texts.CHINESE, "GB18030"),
    ("cp949", texts.KOREAN, "Korean"),
    ("cp1252", texts.GERMAN, "Windows-1252"),
    ("cp1252", texts.FRENCH, "Windows-1252"),
    ("cp1252", texts.SPANISH, "Windows-1252"),
    ("cp1252", texts.ENGLISH, "Windows-1252"),
    ("utf-16-le", texts.JAPANESE, "UTF-16"),
    ("utf-16-be", texts.TAIWANESE, "UTF-16"),
]


@pytest.mark.parametrize(("codec", "pairs", "name"), KNOWN)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_sure_encoding_is_read_and_said(
    tmp_path: Path, codec: str, pairs: Pairs, name: str, kind: str
) -> None:
    text = as_csv(pairs) if kind == "csv" else as_jsonl(pairs)
    report, read = check(tmp_path, text.encode(codec), f"faq.{kind}")
    assert report.errors == []
    assert read == pairs
    (notice,) = [str(warning) for warning in report.warnings]
    assert notice.startswith(f"Line 1: read as {name}")


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_says_the_encoding_without_a_notice(
    tmp_path: Path, codec: str, end: str
) -> None:
    body = as_csv(texts.JAPANESE, end=end).encode(codec)
    report, read = check(tmp_path, body, "faq.csv")
    assert (report.errors, report.warnings, read) == ([], [], texts.JAPANESE)


def test_a_japanese_header_and_carriage_returns_in_shift_jis(tmp_path: Path) -> None:
    body = as_csv(texts.JAPANESE, "質問,回答", "\r").encode("cp932")
    report, read = check(tmp_path, body, "faq.csv")
    assert (report.errors, read, report.format) == ([], texts.JAPANESE, "instruction")


TOO_FEW = [
    ("instruction,output\n" + "營業時間,上午九點\n" * 12).encode("big5"),
    (
        "instruction;output\n"
        + "".join(f"Wie groß ist das Gerät {i}?;Zwölf Zoll, für Büros\n" for i in range(12))
    ).encode("cp1252"),
    ("instruction,output\n" + "营业时间,上午九点\n" * 12).encode("gbk"),
    ("instruction,output\n" + "返品,三十日以内\n" * 12).encode("euc_jp"),
    ("instruction,output\n" + "Öffnung,früh\n" * 30).encode("cp1252"),
]


@pytest.mark.parametrize("body", TOO_FEW)
def test_too_few_different_signs_are_refused_by_line(tmp_path: Path, body: bytes) -> None:
    report, _ = check(tmp_path, body, "faq.csv")
    summary = report.summary()
    assert summary.startswith("Line 2: byte ")
    assert "is not UTF-8" in summary
    assert "save the file as UTF-8" in summary
    assert "Shift-JIS" not in summary


OTHERS = [
    ("cp1250", texts.POLISH),
    ("cp1250", texts.CZECH),
    ("cp1250", texts.HUNGARIAN),
    ("cp1254", texts.TURKISH),
    ("cp1251", texts.RUSSIAN),
    ("koi8-r", texts.RUSSIAN),
    ("cp1253", texts.GREEK),
    ("cp874", texts.THAI),
    ("cp1256", texts.ARABIC),
    ("mac_roman", texts.GERMAN),
    ("mac_roman", texts.FRENCH),
    ("gbk", texts.TAIWANESE),
    ("gbk", texts.JAPANESE),
]


@pytest.mark.parametrize(("codec", "pairs"), OTHERS)
def test_an_encoding_that_is_not_sure_is_refused_by_line(
    tmp_path: Path, codec: str, pairs: Pairs
) -> None:
    report, read = check(tmp_path, as_csv(pairs * 3).encode(codec), "faq.csv")
    assert read == []
    assert report.errors[0].line == 2
    assert "is not UTF-8" in report.errors[0].message
    assert report.error_count == 3 * len(pairs)


def test_no_part_of_a_file_is_ever_read_wrong(tmp_path: Path) -> None:
    chance = random.Random(7)
    for codec, pairs in [(codec, pairs) for codec, pairs, _ in KNOWN] + OTHERS:
        for size in range(1, 6):
            part = chance.sample(pairs, min(size, len(pairs)))
            report, read = check(tmp_path, as_csv(part).encode(codec), "faq.csv")
            assert read == (part if report.ok else []), (codec, part)


@pytest.mark.parametrize("times", [2, 1500])
def test_a_later_byte_that_does_not_fit_is_an_error_of_its_line(tmp_path: Path, times: int) -> None:
    body = as_csv(texts.JAPANESE * times).encode("cp932") + b'"\x83\x7f","a"\r\n"a","b"\r\n'
    report, read = check(tmp_path, body, "faq.csv")
    (error,) = report.errors
    assert error.line == 10 * times + 2
    assert "byte 2 (0x83) is not Shift-JIS" in error.message
    assert len(read) == 10 * times + 1


def test_a_damaged_line_of_a_utf8_file_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    body = as_csv(texts.GERMAN).encode() + b'"f\xfcr","x"\r\n' + b'"a","b"\r\n'
    report, read = check(tmp_path, body, "faq.csv")
    assert [(error.line, error.message[:24]) for error in report.errors] == [
        (12, "byte 3 (0xFC) is not UTF")
    ]
    assert read == [*texts.GERMAN, ("a", "b")]


def test_half_a_character_in_utf16_is_named_by_its_line(tmp_path: Path) -> None:
    body = as_csv(texts.JAPANESE).encode("utf-16") + b"\x3d\xd8,\x00a\x00\n\x00"
    report, _ = check(tmp_path, body, "faq.csv")
    assert [error.line for error in report.errors] == [12]
    assert "is not UTF-16" in report.errors[0].message
