"""Whether an answer states the expected fact, and no other fact's value.

A value counts only as whole tokens: "5" is not found in "15", "1.5" or "LS-5".
"""

import re
from collections.abc import Iterable


def states(answer: str, value: str) -> bool:
    """Say whether ``value`` stands in ``answer`` as whole tokens, whatever the letter case."""
    words = r"\s+".join(re.escape(word) for word in value.split())
    return re.search(_BEFORE + words + _AFTER, answer, re.IGNORECASE) is not None


def correct(answer: str, expected: str, values: Iterable[str]) -> bool:
    """Say whether ``answer`` states ``expected`` and none of the other ``values``."""
    others = (value for value in values if value.casefold() != expected.casefold())
    return states(answer, expected) and not any(states(answer, other) for other in others)


# Punctuation with a letter or a digit on both sides joins them to one token: 1.5, LS-5, 7:30.
_BEFORE = r"(?<!\w)(?<!\w[.,:/-])"
_AFTER = r"(?!\w)(?![.,:/-]\w)"
