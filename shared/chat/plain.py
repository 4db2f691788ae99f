"""Template words inside a message are plain text: trained so, served so, with the same token ids.

A tokenizer finds its added tokens (``<|im_end|>``, ``<think>``) in the raw text, before its
normalizer runs. So a mark inside such a word hides it there, and a normalizer that removes the mark
hands the model's own merges the text as it was typed. Nothing else of the tokenizer changes.
"""

import json
import re
from pathlib import Path
from typing import Any

MARK = "\ufdd0"
"""A noncharacter, which no text may hold; where one is typed all the same it is removed."""


class PlainText:
    """Hides the added tokens of one tokenizer inside the text of messages."""

    def __init__(self, words: frozenset[str]) -> None:
        found = "|".join(re.escape(word) for word in sorted(words))
        # Each place where a word begins, also inside another word.
        self._begins = re.compile(f"(?={found})(.)", re.DOTALL) if words else None

    def __call__(self, text: str) -> str:
        """Return ``text`` with a mark behind the first character of each template word."""
        bare = text.replace(MARK, "")
        return self._begins.sub(rf"\1{MARK}", bare) if self._begins else bare


def template_words(tokenizer: dict[str, Any]) -> frozenset[str]:
    """Added tokens that could end a turn or open a section; runs of blanks cannot."""
    words = (token["content"] for token in tokenizer["added_tokens"])
    return frozenset(word for word in words if len(word.strip()) > 1)


def marked_tokenizer(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a tokenizer.json that reads marked words as plain text."""
    words = template_words(tokenizer)
    # A word looked for in normalised text would be found again without its mark.
    added = [
        token | {"normalized": token["normalized"] and token["content"] not in words}
        for token in tokenizer["added_tokens"]
    ]
    remove = {"type": "Replace", "pattern": {"String": MARK}, "content": ""}
    steps = [remove, *filter(None, [tokenizer["normalizer"]])]
    normalizer = {"type": "Sequence", "normalizers": steps}
    return tokenizer | {"added_tokens": added, "normalizer": normalizer}


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """Read a base model's tokenizer.json."""
    content: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return content
