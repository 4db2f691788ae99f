"""Which rows are learnt, which choose the checkpoint, and which are only reported on.

Decided by the rows and a seed alone, so the same in every attempt, in the trainer and in the
comparer. Related rows are one group, which is never torn apart: rows that name the same group, or
that are the same or nearly.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import chain

from shared.datareport.rows import Row
from shared.evidence.leaks import near_pairs
from shared.files.normalised import NormalisedRow

MOST_SHARE = 5
"""At most one row in five is set apart."""
VALIDATION_SHARE = 10
"""One row in this many chooses and reports when no validation file is given."""
MAX_CARVED_ROWS = 256
"""More rows than this make an evaluation slower but hardly more exact."""
MIN_TEST_ROWS = 10
"""Of fewer rows each part would say too little: then the same ones choose and report."""


class Part(StrEnum):
    """What a row is for."""

    TRAIN = "train"
    VALIDATION = "validation"
    """Chooses the checkpoint and ends training early."""
    TEST = "test"
    """Reported on, and seen by nothing before that."""
    LEFT_OUT = "left_out"
    """Not learnt, where a job takes a share of the rows; everything else is as without it."""


def split(
    digests: Sequence[str], groups: Sequence[int], *, held_out: int, validation: bool, seed: int
) -> list[Part]:
    """Return each row's part, given its content's hash and its group.

    Up to ``held_out`` rows are set apart by ``seed``, for a comparison. Where ``validation`` rows
    are wanted, too, about a tenth of the others are, by their hashes; with nothing set apart, half
    of that tenth is the test. Of one group alone nothing is taken.
    """
    parts = [Part.TRAIN] * len(digests)
    for row in set_apart(groups, held_out, seed):
        parts[row] = Part.TEST
    if validation:
        keys = _keys(digests, groups)
        rest = [row for row, part in enumerate(parts) if part is Part.TRAIN]
        carved = carve([keys[row] for row in rest])
        tested = set() if held_out else _half(carved)
        for row in rest:
            if keys[row] in carved:
                parts[row] = Part.TEST if keys[row] in tested else Part.VALIDATION
    return parts


def leave_out(parts: Sequence[Part], groups: Sequence[int], share: float, seed: int) -> list[Part]:
    """Keep about ``share`` of the training rows: whole groups, drawn by ``seed``; at least one.

    A smaller share is a part of a larger one, so that jobs of one seed make a learning curve.
    """
    members: dict[int, list[int]] = {}
    for row, (part, group) in enumerate(zip(parts, groups, strict=True)):
        if part is Part.TRAIN:
            members.setdefault(group, []).append(row)
    order = list(members.values())
    random.Random(seed).shuffle(order)
    wanted = share * sum(map(len, order))
    left, kept = list(parts), 0
    for rows in order:
        if kept >= wanted:
            for row in rows:
                left[row] = Part.LEFT_OUT
        kept += len(rows)
    return left


def carve(keys: Sequence[str]) -> Counter[str]:
    """Choose groups for validation, each row given by its group's key; return their sizes.

    About a tenth of the rows and at most MAX_CARVED_ROWS. Where no group is that small, it is the
    smallest. Of one group none is chosen: such a file validates on itself.
    """
    wanted = min(max(1, round(len(keys) / VALIDATION_SHARE)), MAX_CARVED_ROWS)
    counts = Counter(keys)
    chosen: Counter[str] = Counter()
    taken = 0
    for key in sorted(counts):
        if taken + counts[key] <= wanted:
            chosen[key] = counts[key]
            taken += counts[key]
    if not chosen and len(counts) > 1:
        smallest = min(counts, key=lambda key: (counts[key], key))
        chosen[smallest] = counts[smallest]
    return chosen


def _half(carved: Counter[str]) -> set[str]:
    """Choose the groups that report: the first half by key; none where a part would be small."""
    rows, half, tested = carved.total(), 0, set()
    for key in sorted(carved):
        if half + carved[key] <= rows // 2:
            tested.add(key)
            half += carved[key]
    return tested if min(half, rows - half) >= MIN_TEST_ROWS else set()


def _keys(digests: Sequence[str], groups: Sequence[int]) -> list[str]:
    """Name each row's group by content, not by place: by the lowest hash of its rows."""
    lowest: dict[int, str] = {}
    for digest, group in zip(digests, groups, strict=True):
        lowest[group] = min(digest, lowest.get(group, digest))
    return [lowest[group] for group in groups]


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


def groups_of(rows: Iterable[NormalisedRow]) -> list[int]:
    """Return a number for each row: that of the first row of its group.

    ``rows`` is gone through three times, and only hashes and sketches stay in memory.
    """
    count = 0
    first: dict[str, int] = {}
    same: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        count += 1
        for name in _names(row):
            earlier = first.setdefault(name, index)
            if earlier != index:
                same.append((earlier, index))
    return joined(count, chain(same, near_pairs(_Comparable(rows))))


def _names(row: NormalisedRow) -> tuple[str, ...]:
    """What all rows of one group have in common: their content, or the group that they name."""
    return (row.digest(),) if row.group is None else (row.digest(), f"group {row.group}")


class _Comparable(Iterable[Row]):
    """Rows as duplicates are looked for, as often as they are asked for."""

    def __init__(self, rows: Iterable[NormalisedRow]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        return map(comparable_row, self._rows)


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
