"""The text of a PDF's pages, by PDFium."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pypdfium2
import pypdfium2.raw

from shared.files.forms import Unreadable

MAX_PAGES = 10_000


def pages(path: Path, notice: Callable[[str], None]) -> Iterator[tuple[int, str]]:
    """Yield each page's number and text; raise Unreadable."""
    document = _opened(path)
    if len(document) > MAX_PAGES:
        raise Unreadable(1, f"has more than {MAX_PAGES:,} pages; split it")
    empty = 0
    for number in range(1, len(document) + 1):
        text = _text(document, number)
        empty += not text.strip()
        yield number, text
    if empty:
        notice(f"{empty:,} of {len(document):,} pages hold no text (perhaps pictures of it)")


def _opened(path: Path) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise Unreadable(1, "is protected by a password; save it without") from None
        raise Unreadable(1, "is a damaged PDF, or cut off on its way") from None


def _text(document: pypdfium2.PdfDocument, number: int) -> str:
    try:
        page = document[number - 1]
        try:
            return str(page.get_textpage().get_text_bounded())
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        return ""
