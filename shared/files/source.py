"""A file's bytes as decoded text, unpacked and split into lines; memory stays bounded.

Lines end with LF, CR LF or, as old Macintosh programs write them, CR alone.
"""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from typing import IO

from shared.files.encoding import (
    BLOCK,
    HEAD,
    UTF8,
    Encoding,
    Readable,
    encoding_of,
    looks_like_shift_jis,
)
from shared.files.forms import BadRow, Unreadable
from shared.files.workbook import Notice

MAX_LINE_BYTES = 4 * 2**20
TOO_LONG = f"longer than {MAX_LINE_BYTES // 2**20} MiB"
MAX_UNPACKED_BYTES = 512 * 2**20
_FREE_BYTES = 64 * 2**20
_MAX_RATIO = 200
GZIP = b"\x1f\x8b"


class Unpacked:
    """The content of a gzip file; more than the limits is refused while it is unpacked."""

    def __init__(self, file: IO[bytes]) -> None:
        packed = file.seek(0, 2)
        file.seek(0)
        self._limit = min(MAX_UNPACKED_BYTES, max(_FREE_BYTES, _MAX_RATIO * packed))
        self._gzip = gzip.GzipFile(fileobj=file)
        self._place = 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; raise Unreadable for what is damaged or too large."""
        try:
            block = self._gzip.read(size)
        except (OSError, EOFError, zlib.error):
            raise Unreadable(1, "the gzip file is damaged; pack it again") from None
        self._place += len(block)
        if self._place > self._limit:
            size_mib = self._limit // 2**20
            raise Unreadable(1, f"the gzip file holds more than {size_mib} MiB; split the file")
        return block

    def seek(self, position: int, /) -> int:
        """Go back to ``position``."""
        self._place = self._gzip.seek(position)
        return self._place


class Text:
    """The text of a file in whatever encoding it is; ``lines`` or ``pieces`` is read once."""

    def __init__(self, file: Readable, notice: Notice) -> None:
        self._file = file
        self._encoding = encoding_of(file)
        self._file.read(len(self._encoding.bom))
        if self._encoding.guessed:
            notice(1, f"read as {self._encoding.name}; if signs look wrong, save it as UTF-8")

    def head(self) -> str:
        """Return how the text begins, without its end being strict; the file is rewound."""
        start = b""
        for block in self._blocks():
            start += block
            if len(start) >= HEAD:
                break
        self._file.seek(len(self._encoding.bom))
        return start[:HEAD].decode(self._line_codec, "replace")

    def lines(self) -> Iterator[tuple[int, str | BadRow]]:
        """Yield numbered lines with their ends; one that cannot be decoded is a BadRow."""
        for number, line in enumerate(_split(self._blocks()), start=1):
            if line is None:
                yield number, BadRow(TOO_LONG)
                continue
            try:
                yield number, line.decode(self._line_codec)
            except UnicodeDecodeError as error:
                yield number, BadRow(_undecodable(line, error.start, self._encoding))

    def pieces(self) -> Iterator[str]:
        """Yield the text in pieces of any size; raise Unreadable where it cannot be decoded."""
        decoder = codecs.getincrementaldecoder(self._line_codec)()
        line = 1
        for block in _with_end(self._blocks()):
            try:
                piece = decoder.decode(block or b"", final=block is None)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                message = _undecodable(error.object, error.start, self._encoding, where=False)
                raise Unreadable(line, message) from None
            line += piece.count("\n")
            yield piece

    @property
    def _line_codec(self) -> str:
        return "utf-8" if self._encoding.codec.startswith("utf") else self._encoding.codec

    def _blocks(self) -> Iterator[bytes]:
        """Yield bytes in which a line's end is one byte: UTF-16 and UTF-32 become UTF-8."""
        if self._line_codec == self._encoding.codec:
            while block := self._file.read(BLOCK):
                yield block
            return
        decoder = codecs.getincrementaldecoder(self._encoding.codec)("surrogatepass")
        while block := self._file.read(BLOCK):
            try:
                yield decoder.decode(block).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                yield b"\xff"  # named by its line when the line is decoded
                return
        if decoder.getstate()[0]:
            yield b"\xff"


def _with_end(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    yield from blocks
    yield None


def _split(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield lines with their ends; None for one that is too long, which is not held in memory."""
    rest, skipping = b"", False
    for block in blocks:
        lines = (rest + block).splitlines(keepends=True)
        # The last may go on in the next block; a CR may have its LF there.
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            yield None if skipping or len(line) > MAX_LINE_BYTES else line
            skipping = False
        if skipping or len(rest) > MAX_LINE_BYTES:
            rest, skipping = b"\r" if rest.endswith(b"\r") else b"", True
    if skipping or len(rest) > MAX_LINE_BYTES:
        yield None
    elif rest:
        yield rest


def _undecodable(line: bytes, start: int, encoding: Encoding, *, where: bool = True) -> str:
    place = f"byte {start + 1} " if where else "a byte "
    found = f"{place}(0x{line[start]:02X}) is not {encoding.name}"
    likely = encoding == UTF8 and looks_like_shift_jis(line)
    return f"{found}; {'it looks like Shift-JIS; ' if likely else ''}save the file as UTF-8"
