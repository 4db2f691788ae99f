"""Which rows of the training file are set apart, where no file of held-out rows is given."""

import random
from collections.abc import Iterable, Sequence

from shared.datareport.rows import Row
from shared.evidence.leaks import near_pairs

MOST_SHARE = 5
"""At most one row in five is set apart."""


def groups_of(rows: Sequence[Row]) -> list[int]:
    """Return a number for each row: that of the first row it is the same as, or nearly."""
    return joined(len(rows), near_pairs(rows))


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
