"""Whether an answer states the expected fact, and no other fact's value.

A value counts only as whole tokens: "5" is not found in "15", "1.5" or "LS-5". Japanese has no
blanks to tell words by, so a letter or digit ends where another script begins
("窯はE12を示す"), and so does katakana; beside kanji and hiragana no end is asked for, because
particles, prefixes and counters stand there ("毎週月曜日に"). So that "京都" is not found in
"東京都" where both are values of the data, longer values are looked for first.
"""

import re
from collections.abc import Collection
from functools import lru_cache

from shared.evidence.text import KATAKANA, UNSPACED, plain


def states_only(answer: str, expected: str, values: Collection[str] = ()) -> bool:
    """Say whether ``answer`` states ``expected`` and none of the other ``values``."""
    text, wanted = _folded(answer), _folded(expected)
    others = _distinct(frozenset(values))
    candidates = [value for value in {wanted, *others} if value and value in text]
    if wanted not in candidates:
        return False
    longest_first = sorted(candidates, key=len, reverse=True)
    return set(re.findall("|".join(map(_pattern, longest_first)), text)) == {wanted}


@lru_cache(maxsize=16)
def _distinct(values: frozenset[str]) -> frozenset[str]:
    return frozenset(map(_folded, values))


def _folded(text: str) -> str:
    return plain(text).casefold()


def _pattern(value: str) -> str:
    return _begin(value[0]) + re.escape(value) + _end(value[-1])


def _begin(first: str) -> str:
    if re.fullmatch(_LETTER, first):
        # Punctuation with a letter or a digit on both sides joins them to one token: 1.5, LS-5.
        return f"(?<!{_LETTER})(?<!{_LETTER}[.,:/-])"
    return f"(?<![{KATAKANA}])" if re.fullmatch(f"[{KATAKANA}]", first) else ""


def _end(last: str) -> str:
    if re.fullmatch(_LETTER, last):
        return f"(?!{_LETTER})(?![.,:/-]{_LETTER})"
    return f"(?![{KATAKANA}])" if re.fullmatch(f"[{KATAKANA}]", last) else ""


_LETTER = rf"[^\W{UNSPACED}]"
"""A letter or a digit of a script that separates words."""
