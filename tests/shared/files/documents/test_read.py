"""Documents become passages that say where they stand; what cannot be read says why."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared.files.documents.passages import PASSAGE, split
from shared.files.documents.read import MAX_BYTES, read_document
from shared.files.documents.report import DocumentReport
from tests.shared.files.documents.made import LOCKED, STYLES, docx, paragraph, pdf

JAPANESE = "返品は三十日以内にお願いします。レシートをお持ちください。ありがとうございます。"


@pytest.fixture
def read(tmp_path: Path):
    """Read a document: its report, and its passages as (place, text)."""

    def reading(content: bytes, name: str) -> tuple[DocumentReport, list[tuple[str, str]]]:
        (tmp_path / "raw").write_bytes(content)
        report = read_document(tmp_path / "raw", name, tmp_path / "passages.jsonl")
        lines: list[dict[str, Any]] = []
        if not report.error:
            lines = [*map(json.loads, (tmp_path / "passages.jsonl").read_text().splitlines())]
        assert all(line["document"] == name for line in lines)
        return report, [(line["place"], line["text"]) for line in lines]

    return reading


@pytest.mark.parametrize(
    ("content", "name", "kind", "passages"),
    [
        (pdf(JAPANESE, "Second page"), "規程.pdf", "pdf",
         [("page 1", JAPANESE), ("page 2", "Second page")]),
        (JAPANESE.encode("cp932"), "a.txt", "text", [("", JAPANESE)]),
        (f"{JAPANESE}\n# 返品\nx\n```\n# no\n```".encode(), "a.md", "markdown",
         [("", JAPANESE), ("返品", "# 返品\nx\n```\n# no\n```")]),
        (f'<meta charset="Shift_JIS"><h1>返品</h1><p>{JAPANESE}<script>x</script>'.encode("cp932"),
         "a.html", "html", [("返品", f"# 返品\n\n{JAPANESE}")]),
        (docx(paragraph("Before") + paragraph("返品", "Heading1") + paragraph(JAPANESE),
              styles=STYLES),
         "a.docx", "docx", [("", "Before"), ("返品", f"# 返品\n\n{JAPANESE}")]),
    ],
)  # fmt: skip
def test_each_kind_becomes_passages_with_their_places(read, content, name, kind, passages):
    report, found = read(content, name)
    assert (report.kind, report.error, found) == (kind, None, passages)
    assert report.passages == len(passages)
    assert report.characters == sum(len(text) for _, text in passages)


BOMB = b"<x>" + b" " * (17 * 2**20) + b"</x>"
LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY a{n} "' + f"&a{n - 1 or ''};" * 10 + '">' for n in range(1, 10)
) + "]>"  # fmt: skip


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (pdf("", ""), "scan.pdf", "OCR"),
        (pdf("x", trailer=LOCKED), "a.pdf", "password"),
        (b"%PDF-1.4\nnothing", "a.pdf", "damaged PDF"),
        (pdf("x", kids="2 0 R"), "loop.pdf", "no text|damaged"),
        (docx("")[:-40], "a.docx", "damaged DOCX"),
        (docx(paragraph("x"), bomb=BOMB), "a.docx", "too large unpacked"),
        (docx(paragraph("&a9;"), dtd=LAUGHS), "a.docx", "damaged DOCX"),
        (docx("<w:p>" * 50_000 + "</w:p>" * 50_000), "a.docx", "damaged DOCX"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "a.docx", r"\.doc or protected"),
        (b"PK\x03\x04", "a.xlsx", "damaged DOCX"),
        (b"<div>" * 100_000 + b"x", "a.html", "no text"),
        (b"abc", "a.bin", "no kind"),
        (b"\0" * 100, "a.txt", "no kind"),
        (b"  \n", "a.md", "no text"),
    ],
)
def test_what_cannot_be_read_says_why(read, content, name, said):
    report, _ = read(content, name)
    assert report.error is not None
    assert re.search(said, report.error)


def test_pages_without_text_are_told_and_too_large_a_file_is_not_read(read, tmp_path):
    report, _ = read(pdf("text", ""), "a.pdf")
    assert report.warnings == ["1 of 2 pages hold no text (perhaps pictures of it)"]
    with (tmp_path / "raw").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    large = read_document(tmp_path / "raw", "a.txt", tmp_path / "p")
    assert "64 MiB" in str(large.error)


def test_passages_end_at_sentences_and_lose_nothing_even_of_one_long_line():
    text = "".join(f"これは文{number}番です。" for number in range(4000))
    passages = split(text)
    assert "".join(passages) == text
    assert all(len(passage) <= PASSAGE[1] for passage in passages)
    assert sum(passage.endswith("。") for passage in passages) > len(passages) * 0.9
