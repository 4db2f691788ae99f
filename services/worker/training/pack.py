"""Rows of one micro-batch laid end to end, without padding; their common beginning only once.

Rows of one data set mostly begin with the same system message. Attention is causal, so those tokens
have the same states in every row: they are computed once per pack (the *shared* tokens), and every
row's own tokens attend to them and to themselves. Three rows that share two tokens:

    rows                   packed, T = 2 + 3 + 1 + 2           own tokens padded, B = 3, R = 3
    s s a a a              s s a a a b c c                     a a a
    s s b                                                      b . .
    s s c c                                                    c c .

Linear layers see the T packed tokens. Only attention, where tokens meet, sees the padded layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.worker.training.data import Row
from services.worker.training.rows import TokenRows


@dataclass(frozen=True)
class Pack:
    """One micro-batch of B rows: S shared tokens, then each row's own tokens, T tokens in all.

    R is the largest number of own tokens of a row.
    """

    rows: tuple[int, ...]
    shared: int
    """S; 0 for a single row."""
    begins: tuple[int, ...]
    """[B] packed place of each row's first own token."""
    token_ids: Tensor
    """[T]"""
    positions: Tensor
    """[T] place of each token in its row."""
    source: Tensor
    """[T] place of each token in the data set's tokens laid end to end."""
    spread: Tensor
    """[B · R] gather index from packed own tokens [T - S] to the padded [B, R] layout; padding
    reads token 0 and is never used."""
    collect: Tensor
    """[T - S] its inverse: the place of each packed own token in [B · R]."""
    mask: Tensor
    """[R, S + R] added to attention scores, 0 or -inf: an own token may attend to the shared tokens
    and to its row up to itself. One mask serves all rows: what a row shares comes first and its
    padding last, so no token comes after padding that could attend to it."""
    shared_mask: Tensor
    """[S, S] the same for the shared tokens, which attend to themselves alone."""
    predicting: Tensor
    """[N] packed places whose next token carries a loss, row by row."""
    targets: Tensor
    """[N] those next tokens."""
    row_tokens: int
    """Tokens of the rows as the user counts them, the common beginning once per row."""


def make_pack(
    members: Sequence[int], rows: TokenRows, device: torch.device, *, share: bool = True
) -> Pack:
    """Lay the rows numbered ``members`` out as one pack; S is 0 where they may not ``share``."""
    chosen = [rows[member] for member in members]
    shared = _shared_tokens(chosen) if share else 0
    own = np.array([len(row) - shared for row in chosen])  # [B] own tokens of each row
    longest = int(own.max())
    begins = shared + np.cumsum(own) - own  # [B] S, and the own tokens of the rows before
    row_of = np.repeat(np.arange(len(chosen)), own)  # [T - S] whose own token each one is
    within = np.concatenate([np.arange(count) for count in own])  # [T - S] its place there
    spread = np.zeros((len(chosen), longest), dtype=np.int64)
    spread[row_of, within] = np.arange(len(within))  # what is left at 0 is padding
    places = np.arange(shared)  # [S]
    starts = rows.offsets[list(members)]  # [B] each row's first token in the data set

    def tensor(*parts: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64, copy=False)).to(device)

    return Pack(
        rows=tuple(members),
        shared=shared,
        begins=tuple(begins.tolist()),
        token_ids=tensor(chosen[0].token_ids[:shared], *(row.token_ids[shared:] for row in chosen)),
        positions=tensor(places, shared + within),
        # What is shared is read from the first row. On the CPU: the kept states (prefix.py) are
        # there.
        source=tensor(starts[0] + places, starts[row_of] + shared + within).cpu(),
        spread=tensor(spread.ravel()),
        collect=tensor(row_of * longest + within),
        mask=_causal(longest, shared, device),
        shared_mask=_causal(shared, 0, device),
        # Token i of a row is packed at begin + i - shared; the one before an answer predicts it.
        predicting=tensor(
            *(begin - shared + row.answers - 1 for begin, row in zip(begins, chosen, strict=True))
        ),
        targets=tensor(*(row.token_ids[row.answers] for row in chosen)),
        row_tokens=sum(len(row) for row in chosen),
    )


def _causal(tokens: int, before: int, device: torch.device) -> Tensor:
    """[tokens, before + tokens]: every token sees all that came before it, and itself."""
    hidden = torch.full((tokens, before + tokens), float("-inf"), device=device)
    return hidden.triu(before + 1)


def _shared_tokens(rows: Sequence[Row]) -> int:
    """How many tokens all rows begin with, up to the first that predicts an answer token."""
    if len(rows) == 1:
        return 0  # nothing is saved, and attention is one product instead of two
    # The place before the first answer token predicts it, so it must be each row's own.
    limit = int(min(row.answers[0] for row in rows)) - 1
    beginnings = np.stack([row.token_ids[:limit] for row in rows])  # [B, limit]
    differing = np.flatnonzero((beginnings != beginnings[0]).any(axis=0))
    return int(differing[0]) if len(differing) else limit
