"""Rows of one micro-batch laid end to end, without padding; their common beginning only once.

Rows of one data set mostly begin with the same system message. Attention is causal, so those tokens
have the same states in every row: they are computed once per pack (the *head*) and every row's own
tokens attend to the head and to themselves. Linear layers see [T] tokens, attention [B, R] padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.worker.training.data import Row


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
    """[B · R] place of each row's own tokens among all own tokens; padding repeats the first."""
    collect: Tensor
    """[T - S] place of each packed token in [B · R]."""
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


def make_pack(
    members: Sequence[int],
    rows: Sequence[Row],
    offsets: Sequence[int],
    device: torch.device,
) -> Pack:
    """Lay the rows numbered ``members`` out as one pack; ``offsets`` says where each row's tokens
    begin in the data set.
    """
    chosen = [rows[member] for member in members]
    head = _common_beginning(chosen)
    own = [len(row) - head for row in chosen]
    longest = max(own)
    token_ids = list(chosen[0].token_ids[:head])
    positions = list(range(head))
    source = list(range(offsets[members[0]], offsets[members[0]] + head))
    begins: list[int] = []
    spread: list[int] = []
    collect: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    for place, (member, row, count) in enumerate(zip(members, chosen, own, strict=True)):
        first = len(token_ids)
        begins.append(first)
        spread.extend([*range(first - head, first - head + count), *[0] * (longest - count)])
        collect.extend(range(place * longest, place * longest + count))
        predicting.extend(first + index - 1 - head for index in row.answers)
        targets.extend(row.token_ids[index] for index in row.answers)
        token_ids.extend(row.token_ids[head:])
        positions.extend(range(head, len(row)))
        source.extend(range(offsets[member] + head, offsets[member] + len(row)))
    return Pack(
        rows=tuple(members),
        head=head,
        begins=tuple(begins),
        token_ids=torch.tensor(token_ids, device=device),
        positions=torch.tensor(positions, device=device),
        source=torch.tensor(source),
        spread=torch.tensor(spread, device=device),
        collect=torch.tensor(collect, device=device),
        mask=_causal(longest, head, device),
        head_mask=_causal(head, 0, device),
        predicting=torch.tensor(predicting, device=device),
        targets=torch.tensor(targets, device=device),
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
    limit = min(row.answers[0] - 1 for row in rows)
    first = rows[0].token_ids
    for place in range(limit):
        if any(row.token_ids[place] != first[place] for row in rows[1:]):
            return place
    return limit
