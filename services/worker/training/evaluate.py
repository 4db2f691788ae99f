"""Loss and token accuracy on validation rows, and the figures serving must reproduce."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from services.worker.spec import ServedCheck
from services.worker.training.lora import Adapter
from services.worker.training.model import FrozenModel
from services.worker.training.pack import Pack
from services.worker.training.plan import buckets
from services.worker.training.prefix import PrefixCache

SERVED_ROWS = 4
"""Validation rows whose log-probabilities the served adapter must reproduce."""


@dataclass(frozen=True)
class Score:
    """Mean over answer tokens."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """The part of the model that an adapter changes: layers from ``first_layer`` and the head."""

    base: FrozenModel
    first_layer: int
    adapter: Adapter | None

    def final_states(self, cache: PrefixCache, pack: Pack) -> torch.Tensor:
        """States [N, D] at the places that predict the pack's answer tokens."""
        layers = range(self.first_layer, len(self.base.layers))
        return self.base.run(cache.states(pack), pack, layers, self.adapter)

    def without_adapter(self) -> "Trained":
        """The base model as it is."""
        return replace(self, adapter=None)


@torch.no_grad()
def evaluate(
    trained: Trained, cache: PrefixCache, token_budget: int, poll: Callable[[], None]
) -> Score:
    """Score all rows of ``cache``; ``poll`` is called between micro-batches."""
    total, right, tokens = 0.0, 0, 0
    for members in buckets(range(len(cache.rows)), cache.lengths, token_budget):
        poll()
        pack = cache.pack(members)
        loss, correct = trained.base.answer_loss(trained.final_states(cache, pack), pack)
        total, right, tokens = total + float(loss), right + correct, tokens + len(pack.targets)
    return Score(total / tokens, right / tokens)


@torch.no_grad()
def write_served_check(path: Path, trained: Trained, cache: PrefixCache) -> None:
    """Write the JSON list of ServedCheck for the shortest validation rows."""
    order = sorted(range(len(cache.rows)), key=lambda member: (cache.lengths[member], member))
    checks = [check.model_dump() for check in _checks(order[:SERVED_ROWS], trained, cache)]
    path.write_text(json.dumps(checks))


def _checks(members: list[int], trained: Trained, cache: PrefixCache) -> Iterator[ServedCheck]:
    for member in members:
        row = cache.rows[member]
        start, end = row.last_answer
        pack = cache.pack([member])
        last = len(range(start, end))
        adapter, base = (
            [
                round(value, 5)
                for value in model.base.logprobs(
                    model.final_states(cache, pack), pack.targets
                ).tolist()[-last:]
            ]
            for model in (trained, trained.without_adapter())
        )
        yield ServedCheck(
            token_ids=row.token_ids[:end],
            answer_start=start,
            adapter_logprobs=tuple(adapter),
            base_logprobs=tuple(base),
        )
