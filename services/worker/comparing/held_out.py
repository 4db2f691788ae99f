"""Which rows of the training file are set apart, where no file of held-out rows is given."""

import random
from collections.abc import Iterable, Sequence
from itertools import chain

from shared.datareport.rows import Row
from shared.evidence.leaks import near_pairs
from shared.files.normalised import NormalisedRow

MOST_SHARE = 5
"""At most one row in five is set apart."""


def groups_of(rows: Sequence[NormalisedRow]) -> list[int]:
    """Return a number for each row: that of the first row of its group.

    Rows are related that name the same group, or are the same or nearly.
    """
    named: dict[str, int] = {}
    same_name = (
        (named.setdefault(row.group, index), index) for index, row in enumerate(rows) if row.group
    )
    alike = near_pairs([comparable_row(row) for row in rows])
    return joined(len(rows), chain(same_name, alike))


def comparable_row(row: NormalisedRow) -> Row:
    """Return a row as duplicates are looked for."""
    return Row(row.line, [message.model_dump() for message in row.messages])


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return the group of each of ``count`` things, which pairs join; a group's first names it."""
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for pair in pairs:
        first, later = sorted(map(root, pair))
        parents[later] = first
    return [root(index) for index in range(count)]


def set_apart(groups: Sequence[int], most: int, seed: int) -> list[int]:
    """Return the indexes of the rows set apart, ascending: whole groups, drawn by ``seed``."""
    room = min(most, len(groups) // MOST_SHARE)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    order = list(members.values())
    random.Random(seed).shuffle(order)
    apart: list[int] = []
    for rows in order:
        if len(apart) + len(rows) <= room:
            apart += rows
    return sorted(apart)
