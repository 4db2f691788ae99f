"""The language of instructions and answers: by script where that is enough, else by py3langid.

Japanese and English first. A text that is too short, or code, is nobody's language.
"""

import re
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

from shared.datareport.report import MAX_LINES, Found, Param
from shared.datareport.rows import Row

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LANGUAGES = [
    *("en", "fr", "de", "es", "it", "pt", "nl", "pl", "cs", "sv", "da", "fi", "hu", "ro", "tr"),
    *("id", "vi", "ru", "uk", "bg", "el", "ar", "fa", "he", "hi", "th"),
]
"""What py3langid chooses among: fewer candidates, fewer mistakes on short texts."""
SURE = 0.95
MIN_LETTERS = 20
MIN_WORDS = 4
LOOKED_AT = 300
"""Characters of a text that are looked at: py3langid takes 1.5 ms for a thousand."""
EVERY_ROW = 5_000
ONE_IN = 20
"""Behind the first ``EVERY_ROW`` rows of a file one row in so many is looked at."""
RARE_SHARE = 0.05
RARE_ROWS = 50
"""In smaller files nothing is rare."""
MIXED_SHARE = 0.2
"""More rows than this whose answers differ in language are meant so: translations."""

_KANA = re.compile(r"[\u3041-\u309f\u30a1-\u30fa\u30fc\uff66-\uff9f]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_LETTER = re.compile(r"[^\W\d_]")
_CODE = re.compile(r"`[^`]*`|https?://\S+|[\w.-]+@[\w.-]+|[{}=;<>|\\]|\S*[_/]\S*|\B-{1,2}\w[\w-]*")
_SIMPLIFIED = re.compile(
    r"[们这为说时会过还从对开关问间车马鸟龙门见觉让认识话语请谁谢边远运进连买卖书东张]"
)


class Languages:
    """The check; ``done`` tells what only the whole file shows."""

    def __init__(self, found: Found, file: Param) -> None:
        self._found = found
        self._file: Param = file
        self._lines: dict[str, list[int]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)
        self._differing: list[int] = []
        self._differ = 0
        self._seen = 0

    def row(self, row: Row) -> None:
        """Look at one row, or in a large file at x."""
        self._seen += 1
        if self._seen > EVERY_ROW and self._seen % ONE_IN:
            return
        asked = language_of(row.instruction)
        answered = language_of(row.answers[-1]) if row.answers else None
        language = asked or answered or "other"
        self._counts[language] += 1
        if len(self._lines[language]) < MAX_LINES:
            self._lines[language].append(row.line)
        if asked and answered and asked != answered:
            self._differ += 1
            if len(self._differing) < MAX_LINES:
                self._differing.append(row.line)

    @property
    def looked_at(self) -> int:
        """Rows whose language was told."""
        return sum(self._counts.values())

    def counts(self) -> dict[str, int]:
        """Return rows by language, most frequent first."""
        return dict(sorted(self._counts.items(), key=lambda item: -item[1]))

    def done(self) -> None:
        """Name the rows that stand out."""
        known = sum(count for language, count in self._counts.items() if language != "other")
        for language, count in self._counts.items():
            if language != "other" and known >= RARE_ROWS and count < RARE_SHARE * known:
                self._tell("rare_language", self._lines[language], count)
        if known and self._differ < MIXED_SHARE * known:
            self._tell("answer_language", self._differing, self._differ)

    def _tell(self, kind: str, lines: list[int], count: int) -> None:
        for line in lines + lines[-1:] * (count - len(lines)):
            self._found.add(self._file, kind, line)


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of a text's language, or None where nothing is sure."""
    text = _CODE.sub(" ", text[:LOOKED_AT])
    letters = len(_LETTER.findall(text))
    kana, han, hangul = (len(script.findall(text)) for script in (_KANA, _HAN, _HANGUL))
    # One of these letters says about as much as three Latin ones.
    if 3 * (kana + han + hangul) >= letters - kana - han - hangul and kana + han + hangul:
        return _east_asian(text, kana, han, hangul)
    if letters < MIN_LETTERS or len(text.split()) < MIN_WORDS:
        return None
    language, certainty = _identifier().classify(text)
    return str(language) if certainty >= SURE else None


def _east_asian(text: str, kana: int, han: int, hangul: int) -> str | None:
    if hangul > kana + han:
        return "ko"
    if kana:
        return "ja"
    # Han alone may be a Japanese heading as well as a Chinese sentence.
    return "zh" if han >= MIN_LETTERS or _SIMPLIFIED.search(text) else None


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import (  # noqa: PLC0415  0.4 s and its model, for whoever needs it
        MODEL_FILE,
        LanguageIdentifier,
    )

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
