"""The grouped operation against the plain formula, on random batches."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.grouped_lora import FusedWeights, group_by_slot

SLOTS, RANK, WIDTH, SIZES = 4, 2, 6, (5, 3, 3)


def stacked(seed: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    a = tuple(torch.randn(SLOTS, 1, RANK, WIDTH, generator=generator) for _ in SIZES)
    return a, tuple(torch.randn(SLOTS, 1, out, RANK, generator=generator) for out in SIZES)


def plain(a, b, slot: int, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([bi[slot, 0] @ (ai[slot, 0] @ x) for ai, bi in zip(a, b, strict=True)])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=40), st.integers(0, 1000))
def test_every_token_gets_its_own_adapter_and_base_tokens_none(slots: list[int], seed: int) -> None:
    a, b = stacked(seed)
    x, before = torch.randn(len(slots), WIDTH), torch.randn(len(slots), sum(SIZES))
    y = before.clone()
    FusedWeights().add(y, x, a, b, group_by_slot(slots))
    for token, slot in enumerate(slots):
        if slot == -1:
            assert torch.equal(y[token], before[token])
        else:
            torch.testing.assert_close(y[token], before[token] + plain(a, b, slot, x[token]))


def test_an_adapter_written_into_a_used_slot_takes_effect() -> None:
    weights = FusedWeights()
    a, b = stacked(1)
    x = torch.randn(1, WIDTH)
    weights.add(torch.zeros(1, sum(SIZES)), x, a, b, group_by_slot([2]))
    others_a, others_b = stacked(2)
    for old, new in zip((*a, *b), (*others_a, *others_b), strict=True):
        old[2].copy_(new[2])
    y = torch.zeros(1, sum(SIZES))
    weights.add(y, x, a, b, group_by_slot([2]))
    torch.testing.assert_close(y[0], plain(others_a, others_b, 2, x[0]))
