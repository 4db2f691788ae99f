"""Documents for retrieval: their text, split into passages that name where they stand.

PDF goes page by page. DOCX becomes HTML and HTML becomes Markdown, so that headings say where a
passage is, however the document was made. Runs in the checking process, under its limits.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from shared.files.documents.markup import docx_html, html_text, markdown_of
from shared.files.documents.passages import split
from shared.files.documents.pdf import pages
from shared.files.documents.report import DocumentReport, Kind
from shared.files.forms import Unreadable
from shared.files.source import Text
from shared.files.workbook import OLE

MAX_BYTES = 64 * 2**20
MAX_CHARACTERS = 20_000_000
"""Of a document's text: forty thick books."""
_TEXTS = {"txt": "text", "text": "text", "md": "markdown", "markdown": "markdown"}
_HTML = {"html", "htm", "xhtml"}
_ZIP = b"PK\x03\x04"
_PDF_WITHIN = 1024
"""Where PDF's mark must stand, as readers of PDF take it."""
_HEADING = re.compile(r"#{1,6}[ \t]+(.*?)[ \t#]*")
_FENCE = re.compile(r"\s{0,3}(```|~~~)")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
UNKNOWN = "is of no kind that is read as a document: text (.txt), Markdown (.md), HTML, PDF or DOCX"


class Section(NamedTuple):
    """Text under one heading, or of one page."""

    place: str
    text: str


def read_document(path: Path, filename: str, passages_path: Path) -> DocumentReport:
    """Write the passages of the document at ``path``, whose user calls it ``filename``.

    A line is ``{"document", "place", "text"}``. Never raises for bad content: the report has an
    error then.
    """
    report = DocumentReport()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unreadable(1, f"is larger than {MAX_BYTES // 2**20} MiB; split it")
        report.kind, sections = _sections(path, filename, report.warnings.append)
        with passages_path.open("w", encoding="utf-8") as target:
            for section in sections:
                text = _clean(section.text)
                report.characters += len(text)
                if report.characters > MAX_CHARACTERS:
                    raise Unreadable(1, f"holds more than {MAX_CHARACTERS:,} characters; split it")
                for passage in split(text):
                    line = {"document": filename, "place": section.place, "text": passage}
                    target.write(json.dumps(line, ensure_ascii=False) + "\n")
                    report.passages += 1
        if not report.passages:
            raise Unreadable(1, _no_text(report.kind))
    except Unreadable as error:
        report.error = error.message
    return report


def _sections(
    path: Path, filename: str, notice: Callable[[str], None]
) -> tuple[Kind, Iterator[Section]]:
    with path.open("rb") as file:
        start = file.read(_PDF_WITHIN)
    ending = filename.strip().rpartition(".")[2].lower()
    if b"%PDF-" in start:
        return "pdf", (Section(f"page {n}", text) for n, text in pages(path, notice))
    if start.startswith(OLE):
        raise Unreadable(1, "is an old .doc or protected by a password; save it as .docx without")
    if start.startswith(_ZIP) or ending == "docx":
        return "docx", _under_headings(markdown_of(docx_html(path)))
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if ending in _HTML or (ending not in _TEXTS and head.startswith((b"<!doctype html", b"<html"))):
        return "html", _under_headings(markdown_of(html_text(path)))
    if ending not in _TEXTS:
        raise Unreadable(1, UNKNOWN)
    with path.open("rb") as file:
        text = "".join(Text(file, lambda _, message: notice(message)).pieces())
    if "\0" in text[:_PDF_WITHIN]:
        raise Unreadable(1, UNKNOWN)
    if _TEXTS[ending] == "text":
        return "text", iter([Section("", text)])
    return "markdown", _under_headings(text)


def _under_headings(markdown: str) -> Iterator[Section]:
    """Yield the text under each heading, the heading with it; a fence's lines are no headings."""
    place, lines, fenced = "", [""], False
    for line in markdown.splitlines():
        heading = None if fenced else _HEADING.fullmatch(line)
        if heading:
            yield Section(place, "\n".join(lines))
            place, lines = heading[1][:200], []
        fenced ^= bool(_FENCE.match(line))
        lines.append(line)
    yield Section(place, "\n".join(lines))


def _clean(text: str) -> str:
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _no_text(kind: Kind) -> str:
    if kind == "pdf":
        return "holds no text, as scanned pages do; run text recognition (OCR) over it first"
    return "holds no text"
