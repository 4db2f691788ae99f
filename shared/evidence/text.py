"""How text is made comparable, and which scripts put no blanks between words."""

import re
import unicodedata

UNSPACED = (
    "\u0e00-\u0eff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff"
)
"""Thai, Lao, Khmer, kana and Chinese characters, as the inside of a regular expression's class."""
KATAKANA = "\u30a1-\u30fa\u30fc-\u30fe"


def plain(text: str) -> str:
    """Return the text in NFKC, with single blanks: ``Ｅ１２`` is ``E12``."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def is_unspaced(text: str) -> bool:
    """Say whether most letters are of a script that puts no blanks between words."""
    letters = sum(map(str.isalpha, text))
    return 2 * len(re.findall(f"[{UNSPACED}]", text)) > letters
