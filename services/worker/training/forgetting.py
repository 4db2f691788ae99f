"""What training costs of the ability that the base model came with.

Measured is the mean loss per token on texts and on answers that are no company's. They are few and
short, and what the frozen layers make of them is computed once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from services.worker.spec import Phase
from services.worker.training.data import Row
from services.worker.training.evaluate import AdaptedModel, evaluate
from services.worker.training.prefix import TOKEN_BUDGET, PrefixCache
from services.worker.training.report import Reporter
from services.worker.training.rows import gather
from shared.chat.encoder import ChatEncoder, Encoded
from shared.evidence.general import general_rows
from shared.evidence.report import Forgetting


@dataclass(frozen=True)
class Losses:
    """Mean loss per token."""

    text: float
    instructions: float


@dataclass
class Memory:
    """What the model knew before, and how well it still does; nothing is computed unasked."""

    model: AdaptedModel
    encoder: ChatEncoder
    context_length: int
    scratch: Path
    report: Reporter

    def rise(self) -> float:
        """Return by how much the worse of the two losses has risen, as a share of what it was."""
        now, before = self._losses(adapted=True), self.before
        return max(now.text / before.text, now.instructions / before.instructions) - 1

    def forgetting(self) -> Forgetting:
        """Return the losses of base and adapted model."""
        now, before = self._losses(adapted=True), self.before
        return Forgetting(
            text_before=before.text,
            text_after=now.text,
            instructions_before=before.instructions,
            instructions_after=now.instructions,
        )

    @cached_property
    def before(self) -> Losses:
        """The base model's."""
        return self._losses(adapted=False)

    def _losses(self, *, adapted: bool) -> Losses:
        text, instructions = (
            evaluate(self.model, cache, self._working("evaluating"), adapted=adapted).loss
            for cache in self._caches
        )
        return Losses(text, instructions)

    @cached_property
    def _caches(self) -> Sequence[PrefixCache]:
        general = general_rows()
        texts = map(_text, map(self.encoder.text_ids, general.texts))
        answers = map(self.encoder.encode, general.conversations)
        return [
            PrefixCache(
                self.model.base,
                gather(self._rows(encoded), self.scratch),
                self.model.first_layer,
                self._working("prefix"),
                self.scratch,
                token_budget=TOKEN_BUDGET,
            )
            for encoded in (texts, answers)
        ]

    def _working(self, phase: Phase) -> Callable[[int, int], None]:
        return partial(self.report.working, phase)

    def _rows(self, encoded: Iterator[Encoded]) -> Iterator[Row]:
        """Cut rows where the context ends."""
        for line, each in enumerate(encoded, start=1):
            token_ids = np.array(each.token_ids[: self.context_length], dtype=np.int32)
            answers = np.array(each.answers, dtype=np.int64)
            yield Row(line, token_ids, answers[answers < len(token_ids)])


def _text(token_ids: list[int]) -> Encoded:
    """Let every token of a text but the first carry a loss."""
    return Encoded(token_ids, list(range(1, len(token_ids))))
