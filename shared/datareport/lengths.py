"""Rows in tokens of the base model: how long they are, and which of them cannot be trained."""

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from shared.chat.encoder import ChatEncoder, TooLong, Unmaskable
from shared.datareport.report import Tokens
from shared.datareport.rows import Row


class Refusal(NamedTuple):
    """Why no job can train a row: the finding's kind, and words without the row's text."""

    kind: str
    reason: str


class Lengths:
    """The check of one file."""

    def __init__(self, base_folder: Path, context_length: int) -> None:
        self._encoder = _encoder(base_folder)
        self._context_length = context_length
        self._lengths: Counter[int] = Counter()
        self._answers = 0

    def row(self, row: Row) -> Refusal | None:
        """Tokenise one row; return why it cannot be used, if so."""
        if not row.answers:
            return Refusal("no_answer", "it has no assistant message to learn from (with weight 1)")
        try:
            encoded = self._encoder.encode(row.messages, self._context_length)
        except TooLong as error:
            return Refusal("too_long", str(error))
        except Unmaskable as error:
            return Refusal("unmaskable", str(error))
        if not encoded.answers:
            return Refusal("no_answer", "its answer has no token to learn")
        self._lengths[len(encoded.token_ids)] += 1
        self._answers += len(encoded.answers)
        return None

    def figures(self) -> Tokens | None:
        """Return the figures of the usable rows; None when there is none."""
        if not self._lengths:
            return None
        total = sum(length * count for length, count in self._lengths.items())
        return Tokens(
            total=total,
            min=min(self._lengths),
            median=self._quantile(0.5),
            p95=self._quantile(0.95),
            max=max(self._lengths),
            answers=self._answers,
            answer_share=round(self._answers / total, 4),
            context_share=round(max(self._lengths) / self._context_length, 4),
        )

    def _quantile(self, share: float) -> int:
        left = share * self._lengths.total()
        for length in sorted(self._lengths):
            left -= self._lengths[length]
            if left <= 0:
                return length
        return max(self._lengths)


@lru_cache(maxsize=2)
def _encoder(folder: Path) -> ChatEncoder:
    return ChatEncoder(folder)
