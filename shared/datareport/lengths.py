"""Rows in tokens of the base model: how long they are, and which of them cannot be trained."""

from collections import Counter
from typing import Any, Protocol

from shared.datareport.report import Tokens
from shared.datareport.rows import Row


class Encoded(Protocol):
    """A tokenised row."""

    @property
    def token_ids(self) -> list[int]:
        """The whole conversation, template included."""

    @property
    def answers(self) -> list[int]:
        """Indices of the tokens that carry a loss."""


class Encoder(Protocol):
    """shared.chat.encoder.ChatEncoder, as far as it is used here."""

    def encode(self, messages: Any) -> Encoded:
        """Tokenise one conversation; raise ``unmaskable`` where its answers cannot be told."""


class Unusable(Exception):
    """A row that no job can train; ``kind`` is the finding's, the text follows "Line 3"."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Lengths:
    """The check of one file."""

    def __init__(
        self, encoder: Encoder, unmaskable: type[Exception], context_length: int
    ) -> None:
        self._encoder = encoder
        self._unmaskable = unmaskable
        self._context_length = context_length
        self._lengths: Counter[int] = Counter()
        self._answers = 0

    def row(self, row: Row) -> None:
        """Tokenise one row; raise Unusable."""
        if len(row.messages) > self._context_length:
            # Each turn is a token at least: no need to spend minutes on finding out how many.
            raise self._too_long(f"more than {self._context_length}")
        try:
            encoded = self._encoder.encode(row.messages)
        except self._unmaskable as error:
            raise Unusable("unmaskable", f"cannot be used: {_sentence(error)}") from None
        length = len(encoded.token_ids)
        self._lengths[length] += 1
        self._answers += len(encoded.answers)
        if length > self._context_length:
            raise self._too_long(str(length))
        if not len(encoded.answers):
            raise Unusable("no_answer", "has no assistant message to learn from")

    def figures(self) -> Tokens | None:
        """Return the figures; None when no row could be tokenised."""
        rows = self._lengths.total()
        if not rows:
            return None
        total = sum(length * count for length, count in self._lengths.items())
        return Tokens(
            total=total,
            min=min(self._lengths),
            median=self._quantile(0.5),
            p95=self._quantile(0.95),
            max=max(self._lengths),
            answers=self._answers,
            answer_share=round(self._answers / max(1, total), 4),
            context_share=round(max(self._lengths) / self._context_length, 4),
        )

    def _too_long(self, tokens: str) -> Unusable:
        fits = f"at most {self._context_length} fit this base model"
        return Unusable("too_long", f"has {tokens} tokens; {fits}")

    def _quantile(self, share: float) -> int:
        left = share * self._lengths.total()
        for length in sorted(self._lengths):
            left -= self._lengths[length]
            if left <= 0:
                break
        return length


def _sentence(error: Exception) -> str:
    return str(error).rstrip(".") or "its answers cannot be told from the rest"
