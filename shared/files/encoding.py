"""Which encoding a file is in: marks first, then strict UTF-8, then a detector that must be sure.

A byte that cannot be decoded becomes a lone surrogate (``MARKED``), so that reading can go on and
the line is named. No text that is decoded can hold one by itself.
"""

import codecs
import re
from collections.abc import Callable
from typing import IO

MARKED = re.compile("[\udc00-\udcff]")
MARK = "tailor.mark"
_BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_RIVALS = ["cp932", "euc_jp", "big5", "gb18030", "euc_kr", "cp1252", "cp1250", "cp1251"]
NAMES = {
    "cp932": "Shift-JIS (CP932)",
    "euc_jp": "EUC-JP",
    "iso2022_jp": "ISO-2022-JP",
    "big5": "Big5",
    "gb18030": "GBK (GB18030)",
    "euc_kr": "EUC-KR",
    "cp1252": "Windows-1252",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
}
"""Encodings that are taken without a mark, as users know them."""
_CHUNK = 2**17
_SAMPLE = 2**16
_WESTERN = set("ÀÂÄÇÉÈÊËÎÏÔÖÙÛÜŒàâäçéèêëîïôöùûüœßáíóúÁÍÓÚñÑ¿¡åÅæÆøØãÃõÕ’‘“”„–—…«»€°§´·")


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return chr(0xDC00 + error.object[error.start]), error.end


codecs.register_error(MARK, _mark)


def encoding_of(opened: Callable[[], IO[bytes]]) -> str | None:
    """Return the encoding of the file that ``opened`` opens; None when it cannot be told."""
    with opened() as file:
        start = file.read(4096)
    for bom, name in _BOMS.items():
        if start.startswith(bom):
            return name
    if b"\x00" in start:
        return _without_bom(start)
    sample, escapes, mixed = _sample(opened)
    if escapes:
        return "iso2022_jp"
    if sample is None or mixed:
        return "utf-8"
    return _detected(sample)


def _without_bom(start: bytes) -> str:
    """Tell UTF-16 by which half of its ASCII characters is zero."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) < 3 or min(even, odd) > max(even, odd) // 8:
        return "utf-8"
    return "utf-16-le" if odd > even else "utf-16-be"


def _sample(opened: Callable[[], IO[bytes]]) -> tuple[bytes | None, bool, bool]:
    """Return lines that are not ASCII (None: all is UTF-8), and what else the file holds.

    The second says whether there are ISO-2022-JP's escapes, the third whether UTF-8 text comes
    before what is not: a damaged UTF-8 file.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    utf8 = False
    with opened() as file:
        while chunk := file.read(_CHUNK):
            if b"\x1b$B" in chunk or b"\x1b$@" in chunk:
                return None, True, False
            try:
                utf8 |= not decoder.decode(chunk).isascii()
            except UnicodeDecodeError as error:
                found = error.object[: error.start]
                if utf8 or any(byte > 0x7F for byte in found):
                    return b"", False, True
                rest = chunk[max(0, error.start - 1024) :] + file.read(_SAMPLE)
                lines = [line for line in re.split(rb"[\r\n]+", rest) if not line.isascii()]
                return b"\n".join(lines)[:_SAMPLE], False, False
    return None, False, False


def _detected(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes  # noqa: PLC0415  only files that are not UTF-8 pay

    cut = sample.rfind(b"\n")
    whole = sample[:cut] if len(sample) == _SAMPLE and cut > 0 else sample
    matches = list(from_bytes(whole, cp_isolation=_RIVALS, threshold=0.2))
    taken = next((match for match in matches if match.encoding != "cp1250"), None)
    if taken is None or taken.encoding not in NAMES or not _enough(str(taken), taken.encoding):
        return None
    for other in matches:
        if str(other) == str(taken) or other.encoding == taken.encoding:
            continue
        gap = other.chaos - taken.chaos
        if gap < 0.05 and not (other.encoding == "cp1250" and taken.coherence >= other.coherence):
            return None
    return taken.encoding


def _enough(text: str, encoding: str) -> bool:
    """Say whether there is evidence: a few characters would fit several encodings."""
    foreign = {mark for mark in text if not mark.isascii()}
    if encoding != "cp1252":
        return len(foreign) >= 12
    words = {word for word in re.findall(r"\w+", text) if not word.isascii()}
    return foreign <= _WESTERN and len(words) >= 8
