"""The states that enter the first trained layer, computed once per row and kept for every epoch.

Below that layer nothing changes during training. In bf16 a row's states depend on the batch they
were computed in, so rows are grouped by the data set alone (sorted by length under a fixed budget),
never by epoch or step: a resumed job computes the same bits.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from services.worker.training.data import Row
from services.worker.training.model import FrozenModel
from services.worker.training.pack import Pack, make_pack
from services.worker.training.plan import buckets

GROUP_TOKENS = 2048
"""Padded tokens per group when the states are computed; part of what a resume must repeat."""
MEMORY_BUDGET_BYTES = 2 << 30
"""A larger data set's states go to a memory-mapped file."""


class PrefixCache:
    """States [all tokens, D] of one list of rows, and the packs that start from them."""

    def __init__(
        self,
        base: FrozenModel,
        rows: Sequence[Row],
        first_layer: int,
        poll: Callable[[], None],
        spill: Path,
        *,
        memory_budget: int = MEMORY_BUDGET_BYTES,
        group_tokens: int = GROUP_TOKENS,
    ) -> None:
        """Compute the states, calling ``poll`` between groups; ``spill`` names the file for large
        sets, which has no name on disk any more once it is mapped.
        """
        self.rows = rows
        self.lengths = [len(row) for row in rows]
        self.offsets = [0, *accumulate(self.lengths)]
        self._device = base.device
        self._states = _allocate(
            (self.offsets[-1], base.embedding.shape[1]), base.dtype, spill, memory_budget
        )
        with torch.no_grad():
            for group in buckets(range(len(rows)), self.lengths, group_tokens):
                poll()
                pack = self.pack(group)
                states = base.run(base.embed(pack), pack, range(first_layer)).cpu()
                for place, member in enumerate(group):
                    self._keep(pack, place, member, states)

    def _keep(self, pack: Pack, place: int, member: int, states: Tensor) -> None:
        """Store one row of a computed group: the shared head first, then its own tokens."""
        begin, end = self.offsets[member], self.offsets[member + 1]
        self._states[begin : begin + pack.head] = states[: pack.head]
        own = pack.begins[place]
        self._states[begin + pack.head : end] = states[own : own + end - begin - pack.head]

    def pack(self, members: Sequence[int]) -> Pack:
        """Lay out the rows numbered ``members``."""
        return make_pack(members, self.rows, self.offsets, self._device)

    def states(self, pack: Pack) -> Tensor:
        """Return what enters the first trained layer, [T, D]."""
        return self._states.index_select(0, pack.source).to(self._device)


def _allocate(
    shape: tuple[int, int], dtype: torch.dtype, spill: Path, memory_budget: int
) -> Tensor:
    size = shape[0] * shape[1]
    if size * dtype.itemsize <= memory_budget:
        return torch.empty(shape, dtype=dtype)
    spill.parent.mkdir(parents=True, exist_ok=True)
    mapped = torch.from_file(str(spill), shared=True, size=size, dtype=dtype)
    spill.unlink()
    return mapped.view(shape)
