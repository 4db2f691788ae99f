"""Normalised rows one at a time, and the texts in them that the checks compare."""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of ``rows.jsonl``; ``line`` is the line in the user's own file."""

    line: int
    messages: list[dict[str, Any]]

    @cached_property
    def answers(self) -> list[str]:
        """The texts that are learnt."""
        return [
            message["content"]
            for message in self.messages
            if message["role"] == "assistant" and message.get("weight", 1)
        ]

    @cached_property
    def prompt(self) -> str:
        """Everything before the last answer, comparable."""
        last = max((i for i, m in enumerate(self.messages) if m["role"] == "assistant"), default=0)
        turns = [f"{m['role'][0]} {m['content']}" for m in self.messages[:last]]
        return comparable("\n".join(turns))

    @cached_property
    def answer(self) -> str:
        """The last answer, comparable."""
        return comparable(self.answers[-1]) if self.answers else ""

    @property
    def instruction(self) -> str:
        """What the user said last before the last answer, as written."""
        said = [message["content"] for message in self.messages if message["role"] == "user"]
        return said[-1] if said else ""

    def digest(self) -> int:
        """Hash of roles, texts and weights."""
        parts = [(m["role"], m["content"], m.get("weight", 1)) for m in self.messages]
        return digest(json.dumps(parts, ensure_ascii=False))


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of a ``rows.jsonl``; memory stays bounded by the longest."""
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            row = json.loads(text)
            yield Row(row["line"], row["messages"])


def comparable(text: str) -> str:
    """Return ``text`` without what the eye passes over: width, case, spaces, end punctuation."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .。!?…")


def digest(text: str) -> int:
    """Hash a text to 63 bits."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1
