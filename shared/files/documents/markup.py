"""DOCX as HTML, HTML as Markdown. Nothing outside the file is opened."""

import codecs
import re
import zipfile
import zlib
from pathlib import Path
from xml.parsers.expat import ExpatError

import mammoth
from html_to_markdown import ConversionError, ConversionOptions, convert

from shared.files.forms import Unreadable
from shared.files.source import Text

MAX_PARTS_BYTES = 128 * 2**20
"""Of all parts of a DOCX, unpacked."""
MAX_XML_BYTES = 16 * 2**20
"""Of its text; the reader holds a tree of it."""
MAX_PARTS = 10_000
_BROKEN = "is a damaged DOCX, or cut off on its way; save it again"
_META = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE
)
_META_WITHIN = 4096
_CODECS = {"shift_jis": "cp932", "iso8859-1": "cp1252", "gb2312": "gb18030", "euc_kr": "cp949"}
"""What browsers read under these names."""
_SAFE = re.compile(r"utf-8|utf-16.*|cp\d+|euc_.*|shift_jis.*|iso.*|gb.*|big5.*|koi8.*")


def docx_html(path: Path) -> str:
    """Return a DOCX as HTML; raise Unreadable."""
    try:
        with path.open("rb") as file:
            _refuse_others(zipfile.ZipFile(file))
            file.seek(0)
            result = mammoth.convert_to_html(file, convert_image=lambda _: [])
    except (
        zipfile.BadZipFile, zlib.error, ExpatError, EOFError, KeyError, ValueError,
        AttributeError, IndexError, TypeError, RecursionError, NotImplementedError, RuntimeError,
    ):  # fmt: skip
        raise Unreadable(1, _BROKEN) from None
    return str(result.value)


def _refuse_others(package: zipfile.ZipFile) -> None:
    """Check names and the sizes that the archive declares; zipfile never unpacks more."""
    parts = package.infolist()
    if "word/document.xml" not in package.namelist():
        raise Unreadable(1, "is a zip file and no .docx; upload what it holds")
    xml = sum(part.file_size for part in parts if part.filename.endswith((".xml", ".rels")))
    whole = sum(part.file_size for part in parts)
    if len(parts) > MAX_PARTS or xml > MAX_XML_BYTES or whole > MAX_PARTS_BYTES:
        raise Unreadable(1, "is too large unpacked; split it or save it as text")


def html_text(path: Path) -> str:
    """Return an HTML file's text in the charset that it names, else as any text file's."""
    with path.open("rb") as file:
        head = file.read(_META_WITHIN)
        named = _META.search(head)
        codec = _codec(named[1].decode()) if named else None
        if codec and not head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE)):
            return (head + file.read()).decode(codec, "replace")
        file.seek(0)
        return "".join(Text(file, lambda *_: None).pieces())


def _codec(name: str) -> str | None:
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        return None
    return _CODECS.get(codec, codec) if _SAFE.fullmatch(codec) else None


def markdown_of(html: str) -> str:
    """Return HTML as Markdown, without scripts, navigation and pictures; raise Unreadable."""
    options = ConversionOptions(extract_metadata=False, skip_images=True)
    try:
        return convert(html, options).content or ""
    except ConversionError:
        raise Unreadable(1, "is HTML that cannot be read") from None
