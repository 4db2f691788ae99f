"""Loss and token accuracy on validation rows, and the figures serving must reproduce."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from services.worker.spec import ServedCheck
from services.worker.training.decoder import Decoder
from services.worker.training.lora import LoraWeights
from services.worker.training.pack import Pack
from services.worker.training.prefix import PrefixCache
from services.worker.training.team import ALONE, Team

SERVED_ROWS = 16
"""Validation rows, of all lengths, whose log-probabilities the served adapter must reproduce."""
SERVED_TOKENS = 1024
"""A longer row is cut here, in its answer, or left out: serving reads all of it at once."""


@dataclass(frozen=True)
class Score:
    """Mean over answer tokens."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class AdaptedModel:
    """Base model and adapter, run from the first trained layer on cached states."""

    base: Decoder
    first_layer: int
    adapter: LoraWeights
    recompute: bool = False
    """Whether the backward pass computes again what is inside a layer, for want of memory."""

    def final_states(self, cache: PrefixCache, pack: Pack, *, adapted: bool = True) -> torch.Tensor:
        """States [N, D] at the places that predict the pack's answer tokens.

        Those of the base model as it is, where not ``adapted``.
        """
        adapter = self.adapter if adapted else None
        states = cache.states(pack)
        return self.base.above(states, pack, self.first_layer, adapter, recompute=self.recompute)


@torch.no_grad()
def evaluate(
    model: AdaptedModel,
    cache: PrefixCache,
    working: Callable[[int, int], None],
    *,
    team: Team = ALONE,
    adapted: bool = True,
) -> Score:
    """Score all rows of ``cache``, of the base model as it is where not ``adapted``.

    ``working`` is called before each micro-batch with the rows done and all rows. Of a ``team``
    each scores its share, and all get the score of all.
    """
    total, right, tokens, done = 0.0, 0, 0, 0
    for members in cache.micro_batches(range(len(cache.rows))):
        working(done, len(cache.rows))
        done += len(members)
        pack = cache.pack(members)
        states = model.final_states(cache, pack, adapted=adapted)
        loss, correct = model.base.answer_loss(states, pack)
        total, right, tokens = total + float(loss), right + correct, tokens + len(pack.targets)
    all_loss, all_right, all_tokens = team.sums(total, right, tokens)
    return Score(all_loss / all_tokens, all_right / all_tokens)


@torch.no_grad()
def write_served_check(
    path: Path, model: AdaptedModel, cache: PrefixCache, context_length: int
) -> None:
    """Write the JSON list of ServedCheck for validation rows spread over all lengths.

    ``context_length`` is what serving takes, the one token included that it generates.
    """
    limit = min(SERVED_TOKENS, context_length - 1)
    fitting = [
        member for member, row in enumerate(cache.rows) if row.last_answer[0] + 1 < limit
    ] or [int(cache.lengths.argmin())]
    chosen = _spread(fitting, cache.lengths)
    checks = [_check(member, model, cache, context_length - 1).model_dump() for member in chosen]
    path.write_text(json.dumps(checks))


def _spread(members: list[int], lengths: NDArray[np.int64]) -> list[int]:
    """Up to SERVED_ROWS of ``members``, from the shortest to the longest at equal distances."""
    order = sorted(members, key=lambda member: (lengths[member], member))
    places = np.linspace(0, len(order) - 1, min(SERVED_ROWS, len(order)))
    return [order[place] for place in places.astype(int)]


def _check(member: int, model: AdaptedModel, cache: PrefixCache, limit: int) -> ServedCheck:
    """One row's last answer, cut where it is beyond SERVED_TOKENS or ``limit``."""
    row = cache.rows[member]
    start, end = row.last_answer
    kept = max(1, min(end, SERVED_TOKENS, limit) - start)
    pack = cache.pack([member])
    first = len(pack.targets) - (end - start)
    adapter, base = (
        model.base.logprobs(states, pack.targets)[first : first + kept]
        for states in (
            model.final_states(cache, pack),
            model.final_states(cache, pack, adapted=False),
        )
    )
    return ServedCheck(
        token_ids=tuple(row.token_ids[: start + kept].tolist()),
        answer_start=start,
        adapter_logprobs=tuple(round(value, 5) for value in adapter.tolist()),
        base_logprobs=tuple(round(value, 5) for value in base.tolist()),
    )
