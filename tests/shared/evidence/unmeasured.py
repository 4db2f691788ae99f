"""Answers as the summary takes them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Unmeasured:
    """An answer of which nothing was measured."""

    failed: str | None = None
    cut: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float | None = None
    answer_seconds: float | None = None
