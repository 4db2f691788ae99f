"""LoRA for a batch of tokens of several adapters: group the tokens, then plain matrix products.

The slices of a packed layer (q, k, v) share two products, with A side by side and B block-diagonal:
a few multiplications by zero are cheaper than three times the calls.
"""

from dataclasses import dataclass

import torch

Rows = slice | torch.Tensor
"""Token positions of a batch: a range where they are adjacent, else their numbers."""
Groups = list[tuple[int, Rows]]
"""Adapter slot and the positions of its tokens."""


def group_by_slot(slots: list[int]) -> Groups:
    """Group the tokens' positions by adapter slot; -1, the base model, is in no group."""
    positions: dict[int, list[int]] = {}
    for position, slot in enumerate(slots):
        if slot >= 0:
            positions.setdefault(slot, []).append(position)
    return [(slot, _rows(found)) for slot, found in positions.items()]


def _rows(positions: list[int]) -> Rows:
    first, last = positions[0], positions[-1]
    if last - first + 1 == len(positions):
        return slice(first, last + 1)
    return torch.tensor(positions)


@dataclass
class _Layer:
    """Fused matrices of one packed layer, by slot, for one state of its stacked weights."""

    versions: tuple[int, ...]
    slots: dict[int, tuple[torch.Tensor, torch.Tensor]]


class FusedWeights:
    """For each layer and slot: A of all slices side by side [in, n·r], B block-diagonal [n·r, out].

    vLLM writes an adapter into its slot in place; PyTorch counts such writes in ``_version``, so a
    changed layer is seen without a hook into vLLM's loading.
    """

    def __init__(self) -> None:
        self._layers: dict[int, _Layer] = {}

    def get(
        self, a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...], slot: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (A, B) of ``slot``. ``a``: slices [slots, 1, r, in]; ``b``: [slots, 1, out, r]."""
        versions = tuple(t._version for t in (*a, *b))
        layer = self._layers.get(a[0].data_ptr())
        if layer is None or layer.versions != versions:
            layer = self._layers[a[0].data_ptr()] = _Layer(versions, {})
        if slot not in layer.slots:
            layer.slots[slot] = (
                torch.cat([t[slot, 0] for t in a]).T.contiguous(),
                torch.block_diag(*(t[slot, 0].T for t in b)),  # type: ignore[no-untyped-call]
            )
        return layer.slots[slot]

    def add(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        a: tuple[torch.Tensor, ...],
        b: tuple[torch.Tensor, ...],
        groups: Groups,
    ) -> None:
        """Add to ``y`` [tokens, out] what each token's adapter makes of ``x`` [tokens, in].

        Rows of tokens in no group are not touched.
        """
        for slot, rows in groups:
            fused_a, fused_b = self.get(a, b, slot)
            if isinstance(rows, slice):
                y[rows].addmm_(x[rows] @ fused_a, fused_b)
            else:
                y.index_add_(0, rows, x.index_select(0, rows) @ fused_a @ fused_b)
