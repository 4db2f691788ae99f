"""Which encoding a text file is in. UTF-8 is the rule; another one only where there is no doubt.

A wrong guess would train mojibake, so three things must agree: nearly all lines of a sample decode,
a rule of the language holds (Japanese has kana, Chinese has common characters, Western text one
alphabet), and charset-normalizer comes to the same. Otherwise the file is taken as UTF-8 and its
lines are refused.
"""

import codecs
import re
from collections import Counter
from typing import NamedTuple, Protocol

BLOCK = 2**18
HEAD = 2**16
_SAMPLE = 2**18
_SAMPLE_OF_BLOCK = 2**14
_FOR_DETECTOR = 2**15
_ESCAPES = (b"\x1b$B", b"\x1b$@")
_SAFE = re.compile(rb"[\x00-\x2f]")
"""Bytes that are never the second half of a character in any of these encodings."""

_ALPHABETS = tuple(
    frozenset(letters + letters.upper())
    for letters in (
        "äöüßéèàç",
        "àâæçéèêëîïôœùûüÿ",
        "áéíñóúüçïàèò",
        "áâãàçéêíóôõúü",
        "åäöéüæø",
        "àèéìíîòóùú",
        "éëïöüèêáíó",
        "áðéíóúýþæö",
    )
)
"""German, French, Spanish and Catalan, Portuguese, Nordic, Italian, Dutch, Icelandic."""
_SIGNS = frozenset("„“”‚‘’‹›«»–—…€•°§·¡¿®©™£´\xa0")


class Readable(Protocol):
    """Bytes that can be read again from the beginning."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        ...

    def seek(self, position: int, /) -> int:
        """Go to ``position``."""
        ...


class Encoding(NamedTuple):
    """A codec of Python and the name by which people know it."""

    codec: str
    name: str
    bom: bytes = b""
    guessed: bool = False
    """Its owner is told which was taken."""


UTF8 = Encoding("utf-8", "UTF-8")
_BOMS = (
    Encoding("utf-8", "UTF-8", codecs.BOM_UTF8),
    Encoding("utf-32-le", "UTF-32", codecs.BOM_UTF32_LE),  # before UTF-16: it begins alike
    Encoding("utf-16-le", "UTF-16", codecs.BOM_UTF16_LE),
    Encoding("utf-16-be", "UTF-16", codecs.BOM_UTF16_BE),
)
_ISO_2022_JP = Encoding("iso2022_jp_ext", "ISO-2022-JP", guessed=True)
_CP932 = Encoding("cp932", "Shift-JIS (Windows code page 932)", guessed=True)
_EUC_JP = Encoding("euc_jp", "EUC-JP", guessed=True)
_CP949 = Encoding("cp949", "Korean (Windows code page 949)", guessed=True)
_BIG5 = Encoding("cp950", "Big5", guessed=True)
_GB18030 = Encoding("gb18030", "GB18030 (GBK)", guessed=True)
_CP1252 = Encoding("cp1252", "Windows-1252", guessed=True)
_DETECTED = {
    "cp932": _CP932,
    "euc_jp": _EUC_JP,
    "cp949": _CP949,
    "big5": _BIG5,
    "gb18030": _GB18030,
    # One shape for the detector; the alphabets tell Windows-1252 from its neighbours.
    "cp1250": _CP1252,
    "cp1252": _CP1252,
    "cp1254": _CP1252,
}


def encoding_of(file: Readable) -> Encoding:
    """Choose a file's encoding in at most two bounded passes; the file is left at its beginning."""
    head = file.read(HEAD)
    file.seek(0)
    for known in _BOMS:
        if head.startswith(known.bom):
            return known
    found = _utf16(head) or _survey(file)
    file.seek(0)
    return found


def looks_like_shift_jis(line: bytes) -> bool:
    """Say whether a line of another encoding is surely Japanese as Windows writes it.

    The lead bytes of kana, 0x82 and 0x83, are not used by Big5, EUC or Windows-1252 letters.
    """
    try:
        text = line.decode("cp932")
    except UnicodeDecodeError:
        return False
    return _is_japanese(Counter(mark for mark in text if mark > "\x7f"))


def _utf16(head: bytes) -> Encoding | None:
    """Recognise UTF-16 without a byte order mark by the zero bytes of its ASCII characters."""
    if b"\x00" not in head:
        return None
    body = head[: len(head) // 2 * 2]
    for codec in ("utf-16-le", "utf-16-be"):
        try:
            text = codecs.getincrementaldecoder(codec)().decode(body)
        except UnicodeDecodeError:
            continue
        plain = sum(mark < "\x7f" for mark in text)
        if "\x00" not in text and any(mark in text for mark in "\r\n{") and plain * 20 > len(text):
            return Encoding(codec, "UTF-16", guessed=True)
    return None


def _survey(file: Readable) -> Encoding:
    decoder = codecs.getincrementaldecoder("utf-8")()
    ascii_only, escaped = True, False
    while block := file.read(BLOCK):
        ascii_only = ascii_only and block.isascii()
        escaped = escaped or any(mark in block for mark in _ESCAPES)
        try:
            decoder.decode(block)
        except UnicodeDecodeError:
            file.seek(0)
            return _legacy(_sample(file))
    return _ISO_2022_JP if escaped and ascii_only else UTF8


def _sample(file: Readable) -> list[bytes]:
    """Gather lines that are not ASCII, from the head and from later blocks."""
    lines: list[bytes] = []
    size = 0
    while size < _SAMPLE and (block := file.read(BLOCK)):
        taken = 0
        for line in _whole_lines(block):
            if line.isascii() or taken > _SAMPLE_OF_BLOCK:
                continue
            lines.append(line if len(line) <= _SAMPLE_OF_BLOCK else _inner(line[:_SAMPLE_OF_BLOCK]))
            taken += len(lines[-1])
        size += max(taken, 1)
    return lines


def _whole_lines(block: bytes) -> list[bytes]:
    lines = block.splitlines()
    ended = len(block) < BLOCK or block.endswith(b"\n")
    return lines if ended else lines[:-1] or [_inner(block)]


def _inner(piece: bytes) -> bytes:
    """Cut a piece of a line where no character can be torn apart."""
    places = [match.start() for match in _SAFE.finditer(piece)]
    return piece[places[0] : places[-1]] if places else piece


def _legacy(lines: list[bytes]) -> Encoding:
    if sum(_decodes(line, "utf-8") for line in lines) * 10 > len(lines):
        return UTF8  # a UTF-8 file with some damaged lines
    fitting = []
    for one in dict.fromkeys(_DETECTED.values()):
        # Lines that do not decode are named later; they must be few.
        good = [line for line in lines if _decodes(line, one.codec)]
        if len(good) * 10 >= len(lines) * 9 and _fits(b"\n".join(good), one.codec):
            fitting.append((one, b"\n".join(good)))
    if len(fitting) != 1:
        return UTF8
    found, sample = fitting[0]
    detected = _detected(sample)
    # The detector may see Chinese in short EUC-JP; strict decoding and kana exclude that.
    agreed = detected == found or (found == _EUC_JP and detected in (None, _GB18030))
    return found if agreed else UTF8


def _decodes(text: bytes, codec: str) -> bool:
    try:
        text.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _detected(sample: bytes) -> Encoding | None:
    from charset_normalizer import from_bytes  # noqa: PLC0415  slow to import, rarely needed

    if len(sample) > _FOR_DETECTOR:
        sample = sample[: sample.rfind(b"\n", 0, _FOR_DETECTOR) + 1 or None]
    best = from_bytes(
        sample,
        cp_isolation=list(_DETECTED),
        preemptive_behaviour=False,
    ).best()
    return _DETECTED.get(best.encoding) if best else None


def _fits(sample: bytes, codec: str) -> bool:
    """Say whether the sample is surely text of the language that ``codec`` is for."""
    try:
        text = sample.decode(codec)
    except UnicodeDecodeError:
        return False
    marks = Counter(mark for mark in text if mark > "\x7f")
    if codec == "cp1252":
        return _is_western(text, marks)
    if codec in ("cp932", "euc_jp"):
        return len(marks) >= 15 and _is_japanese(marks)
    if codec == "cp949":
        return len(marks) >= 20 and _hangul(marks) > 0.95
    if codec == "cp950":
        return len(marks) >= 20 and _share_of_leads(marks, "big5", 0xA4, 0xC6, (0xA1, 0xA3)) > 0.9
    chinese = _share_of_leads(marks, "gb2312", 0xB0, 0xD7, (0xA1, 0xA3)) > 0.9
    return len(marks) >= 20 and chinese and not _fits(sample, "cp949")


def _is_japanese(marks: Counter[str]) -> bool:
    """At least a fifth is kana of full width; little is of half width; none is private."""
    total = marks.total()
    kana = sum(many for mark, many in marks.items() if "\u3041" <= mark <= "\u30fe")
    narrow = sum(many for mark, many in marks.items() if "\uff61" <= mark <= "\uff9f")
    private = any("\ue000" <= mark <= "\uf8ff" for mark in marks)
    return kana > 0 and kana * 5 >= total and narrow * 5 <= total and not private


def _hangul(marks: Counter[str]) -> float:
    letters = {mark: many for mark, many in marks.items() if mark.isalpha()}
    syllables = sum(many for mark, many in letters.items() if "\uac00" <= mark <= "\ud7a3")
    return syllables / max(1, sum(letters.values()))


def _share_of_leads(
    marks: Counter[str], codec: str, first: int, last: int, signs: tuple[int, int]
) -> float:
    """Return how much lies in the rows of common characters and signs of a Chinese standard."""
    common = 0
    for mark, many in marks.items():
        lead = mark.encode(codec, "ignore")[:1]
        if lead and (first <= lead[0] <= last or signs[0] <= lead[0] <= signs[1]):
            common += many
    return common / max(1, marks.total())


def _is_western(text: str, marks: Counter[str]) -> bool:
    """All letters are of one alphabet, and there are enough different words to be sure."""
    words = {word for word in re.findall(r"[\w‘’“”„–—]+", text) if not word.isascii()}
    letters = {mark for mark in marks if mark not in _SIGNS}
    return len(words) >= 10 and any(letters <= alphabet for alphabet in _ALPHABETS)
