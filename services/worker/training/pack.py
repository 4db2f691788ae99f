"""Rows of one micro-batch laid end to end, without padding; their common beginning only once.

Rows of one data set mostly begin with the same system message. Attention is causal, so those tokens
have the same states in every row: they are computed once per pack (the *head*) and every row's own
tokens attend to the head and to themselves. Linear layers see [T] tokens, attention [B, R] padded.
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
    """One micro-batch of B rows: S head tokens, then each row's own tokens; T tokens in all."""

    rows: tuple[int, ...]
    head: int
    """S."""
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
    """[R, S + R] added to attention scores, 0 or -inf: an own token may attend to the head and to
    its row up to itself. Padding comes last in its row, so nobody attends to it."""
    head_mask: Tensor
    """[S, S] the same for the head."""
    predicting: Tensor
    """[N] packed places whose next token carries a loss, row by row."""
    targets: Tensor
    """[N] those next tokens."""
    row_tokens: int
    """Tokens of the rows as the user counts them, the common beginning once per row."""


def make_pack(members: Sequence[int], rows: TokenRows, device: torch.device) -> Pack:
    """Lay the rows numbered ``members`` out as one pack."""
    chosen = [rows[member] for member in members]
    head = _common_beginning(chosen)
    own = np.array([len(row) - head for row in chosen])  # [B] own tokens of each row
    longest = int(own.max())
    begins = head + np.cumsum(own) - own  # [B] S, and the own tokens before each row's
    row_of = np.repeat(np.arange(len(chosen)), own)  # [T - S] whose own token each one is
    within = np.concatenate([np.arange(count) for count in own])  # [T - S] its place there
    spread = np.zeros((len(chosen), longest), dtype=np.int64)
    spread[row_of, within] = np.arange(len(within))  # what is left at 0 is padding
    places = np.arange(head)  # [S]
    starts = rows.offsets[list(members)]  # [B] each row's first token in the data set

    def tensor(*parts: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64, copy=False)).to(device)

    return Pack(
        rows=tuple(members),
        head=head,
        begins=tuple(begins.tolist()),
        token_ids=tensor(chosen[0].token_ids[:head], *(row.token_ids[head:] for row in chosen)),
        positions=tensor(places, head + within),
        # The head is read from the first row. On the CPU: the kept states (prefix.py) are there.
        source=tensor(starts[0] + places, starts[row_of] + head + within).cpu(),
        spread=tensor(spread.ravel()),
        collect=tensor(row_of * longest + within),
        mask=_causal(longest, head, device),
        head_mask=_causal(head, 0, device),
        # ``answers`` counts in the row, head included; the token before one predicts it.
        predicting=tensor(
            *(begin - head - 1 + row.answers for begin, row in zip(begins, chosen, strict=True))
        ),
        targets=tensor(*(row.token_ids[row.answers] for row in chosen)),
        row_tokens=sum(len(row) for row in chosen),
    )


def _causal(tokens: int, before: int, device: torch.device) -> Tensor:
    """[tokens, before + tokens]: every token sees all that came before it, and itself."""
    hidden = torch.full((tokens, before + tokens), float("-inf"), device=device)
    return hidden.triu(before + 1)


def _common_beginning(rows: Sequence[Row]) -> int:
    """Tokens that all rows begin with, ending before the first that predicts an answer token."""
    if len(rows) == 1:
        return 0
    # The place before the first answer token predicts it, so it must be each row's own.
    limit = int(min(row.answers[0] for row in rows)) - 1
    beginnings = np.stack([row.token_ids[:limit] for row in rows])  # [B, limit]
    differing = np.flatnonzero((beginnings != beginnings[0]).any(axis=0))
    return int(differing[0]) if len(differing) else limit
