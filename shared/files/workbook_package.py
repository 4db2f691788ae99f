"""What a workbook's zip holds: its parts by name, their XML as a stream, sheets, strings, formats.

openpyxl stops at a colour it does not like and cannot say in its streaming mode what is hidden;
python-calamine gives no number formats. So the few elements that matter are read here, with the
standard library's expat: a DTD, which the format forbids, ends the reading, and with it every
entity. Nothing outside the zip is opened, nothing is written to disk.
"""

import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple
from xml.parsers import expat

from shared.files.builtin_formats import BUILTIN, GENERAL
from shared.files.forms import Unreadable

XmlEvent = tuple[str, dict[str, str] | None, str]
"""Tag without prefix; its attributes where it begins and None where it ends; there, the text."""

DAMAGED = (
    "the workbook is damaged (perhaps cut off on its way) or not an .xlsx file; open it in Excel, "
    "save it as .xlsx and upload that"
)
MAX_XML_BYTES = 256 * 2**20
"""Of all XML parts of a workbook, unpacked."""
MAX_SHARED_BYTES = 64 * 2**20
"""Of the XML parts that are not sheets; the shared strings are held in memory."""
MAX_PARTS = 10_000
MAX_ELEMENTS = 5_000_000
"""Elements that are read in all: bounds the time that a small file of empty elements takes."""
MAX_STRINGS = 2_000_000
MAX_FORMATS = 65_536
_CHUNK = 64 * 1024
_TOO_LARGE = "the workbook is too large unpacked; save it as CSV (UTF-8)"
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_PARSE_FAULTS = (
    expat.ExpatError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError,
    NotImplementedError, OverflowError,
)  # fmt: skip


class Damaged(Exception):
    """A part of the workbook cannot be read."""


class Sheet(NamedTuple):
    """A sheet as the workbook lists it."""

    name: str
    part: str
    hidden: bool


class Book(NamedTuple):
    """What the workbook's main part says."""

    sheets: list[Sheet]
    date1904: bool
    calculated_on_load: bool
    """Values of formulas may be placeholders until Excel has opened the file."""


class Package:
    """An opened workbook. ``book`` must be called before strings and formats."""

    def __init__(self, file: IO[bytes]) -> None:
        """Open the zip; raise Unreadable."""
        with _faults():
            self._zip = zipfile.ZipFile(file)
        parts = self._zip.infolist()
        self._parts = {p.filename.replace("\\", "/").lstrip("/").lower(): p for p in parts}
        self._elements = 0
        self._related: dict[str, str] = {}
        _refuse_bomb(self._parts)
        self._refuse_others()

    def _refuse_others(self) -> None:
        if "xl/workbook.bin" in self._parts:
            raise Unreadable(1, "this is an .xlsb workbook; save it as .xlsx in Excel")
        if "mimetype" in self._parts and "content.xml" in self._parts:
            raise Unreadable(1, "this is an OpenDocument file (.ods); save it as .xlsx or CSV")
        if "word/document.xml" in self._parts or "ppt/presentation.xml" in self._parts:
            raise Unreadable(1, "this is not a workbook; save the table as .xlsx or CSV")

    def events(self, part: str) -> Iterator[XmlEvent]:
        """Yield the elements of a part in their order; raise Damaged or Unreadable."""
        with _damage():
            parser, found = _parser()
            with self._zip.open(self._parts[part.lower()]) as stream:
                while chunk := stream.read(_CHUNK):
                    parser.Parse(chunk)
                    self._count(len(found))
                    yield from found
                    found.clear()
            parser.Parse(b"", True)
            yield from found

    def mentions(self, part: str, word: str) -> bool:
        """Say whether a part's bytes hold an ASCII word: quicker than to parse it."""
        marks = (word.encode(), word.encode("utf-16-le")[:-1])
        with _damage(), self._zip.open(self._parts[part.lower()]) as stream:
            tail = b""
            while chunk := stream.read(_CHUNK):
                if any(mark in tail + chunk for mark in marks):
                    return True
                tail = chunk[-2 * len(word) :]
        return False

    def book(self) -> Book:
        """Read the main part: sheets in the order of their tabs."""
        main = next(iter(self._relations("").values()), "xl/workbook.xml")
        targets = self._relations(main)
        sheets, date1904, on_load = [], False, False
        for tag, attrs, _ in self.events(main):
            if not attrs:
                continue
            if tag == "sheet":
                part = targets.get(next((v for k, v in attrs.items() if k.endswith(":id")), ""))
                if part:
                    hidden = attrs.get("state", "visible") != "visible"
                    sheets.append(Sheet(attrs.get("name", ""), part, hidden))
            elif tag == "workbookPr":
                date1904 = is_true(attrs.get("date1904"))
            elif tag == "calcPr":
                on_load = is_true(attrs.get("fullCalcOnLoad"))
        return Book(sheets, date1904, on_load)

    def _relations(self, part: str) -> dict[str, str]:
        """Map relation ids to the worksheets (of the package: to the main part) they point to."""
        folder, name = posixpath.split(part)
        wanted = "worksheet" if part else "officeDocument"
        found = {}
        for tag, attrs, _ in self.events(f"{folder}/_rels/{name}.rels".lstrip("/")):
            if tag != "Relationship" or not attrs or attrs.get("TargetMode") == "External":
                continue
            kind = attrs.get("Type", "").rsplit("/", 1)[-1]
            target = attrs.get("Target", "").replace("\\", "/")
            path = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/").lower()
            if path not in self._parts:
                continue
            if kind == wanted:
                found[attrs.get("Id", "")] = path
            else:
                self._related[kind] = path
        return found

    def strings(self) -> list[str]:
        """Read the texts that cells point to by number; without phonetic guides."""
        strings: list[str] = []
        if "sharedStrings" not in self._related:
            return strings
        pieces: list[str] = []
        phonetic = False
        for tag, attrs, text in self.events(self._related["sharedStrings"]):
            if tag == "rPh":
                phonetic = attrs is not None
            elif attrs is None and tag == "t" and not phonetic:
                pieces.append(text)
            elif attrs is None and tag == "si":
                if len(strings) == MAX_STRINGS:
                    raise Unreadable(1, f"more than {MAX_STRINGS:,} texts; save it as CSV (UTF-8)")
                strings.append(unescaped("".join(pieces)))
                pieces.clear()
        return strings

    def formats(self) -> list[str | None] | None:
        """Read the number format of each cell style (None: not known); None: all are damaged."""
        if "styles" not in self._related:
            return [GENERAL]
        own: dict[str, str] = {}
        styles: list[str] = []
        inside = False
        try:
            for tag, attrs, _ in self.events(self._related["styles"]):
                if tag == "cellXfs":
                    inside = attrs is not None
                elif attrs is None or len(styles) + len(own) > MAX_FORMATS:
                    continue
                elif tag == "numFmt":
                    own.setdefault(attrs.get("numFmtId", ""), attrs.get("formatCode", ""))
                elif tag == "xf" and inside:
                    styles.append(attrs.get("numFmtId", "0"))
        except Damaged:
            return None
        return [_format(number, own) for number in styles] or [GENERAL]

    def _count(self, found: int) -> None:
        self._elements += found // 2
        if self._elements > MAX_ELEMENTS:
            raise Unreadable(1, "the workbook holds too many cells; save it as CSV (UTF-8)")


def unescaped(text: str) -> str:
    """Undo ``_xHHHH_`` (ECMA-376 part 1, 22.9.2.19); line breaks become what Excel shows."""
    if "_x" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
        text = _joined(text)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def is_true(value: str | None) -> bool:
    """Read XML's boolean."""
    return value in ("1", "true", "on")


def _joined(text: str) -> str:
    """Two escapes may be the halves of one character; a lone half stays what it is."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _format(number: str, own: dict[str, str]) -> str | None:
    if number in own:
        code = own[number]
        return GENERAL if code.strip().lower() in ("general", "", "g/標準") else code
    return BUILTIN.get(int(number)) if number.isdecimal() and len(number) < 6 else None


def _refuse_bomb(parts: dict[str, zipfile.ZipInfo]) -> None:
    """Check the sizes that the archive declares; zipfile never unpacks more than declared."""
    if any(
        p.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for p in parts.values()
    ):
        raise Unreadable(1, DAMAGED)  # the format knows no other
    xml = {name: p.file_size for name, p in parts.items() if name.endswith((".xml", ".rels"))}
    small = sum(size for name, size in xml.items() if not name.startswith("xl/worksheets/"))
    if (
        len(parts) > MAX_PARTS
        or small > MAX_SHARED_BYTES
        or sum(xml.values()) > MAX_XML_BYTES
    ):  # fmt: skip
        raise Unreadable(1, _TOO_LARGE)


def _parser() -> tuple[expat.XMLParserType, list[XmlEvent]]:
    """Return a parser and the list that its events go to."""
    found: list[XmlEvent] = []
    text: list[str] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(tag: str, attrs: dict[str, str]) -> None:
        text.clear()
        found.append((tag.rpartition(":")[2], attrs, ""))

    def end(tag: str) -> None:
        found.append((tag.rpartition(":")[2], None, "".join(text)))
        text.clear()

    def doctype(*_: object) -> None:
        raise Damaged

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = doctype
    return parser, found


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except _PARSE_FAULTS as error:
        raise Damaged from error


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except _PARSE_FAULTS:
        raise Unreadable(1, DAMAGED) from None
