"""Rows that repeat, nearly repeat or contradict one another, in one file and across both.

Exact: hashes. Near: MinHash over character n-grams of prompt and answer, banded (Broder 1997;
Leskovec et al., Mining of Massive Datasets, ch. 3). Rows with other numbers in them are never near:
"part 12" and "part 13" differ in one character and in everything that matters.
"""

import re
from array import array
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from shared.datareport.report import Found, Param
from shared.datareport.rows import Row, digest

MAX_EXACT_ROWS = 500_000
MAX_NEAR_ROWS = 200_000
"""Later rows are not compared: about 60 bytes of hashes and 700 of sketches for each row."""
NEAR = 0.8
"""Jaccard similarity of the n-grams from which two texts are nearly the same."""
BANDS, BAND = 24, 5
"""Of rows this alike all but one in 10,000 share a band of their sketches."""
LATIN_GRAM, GRAM = 5, 3
"""Letters say less than kana and kanji: with fewer, the same words in another order were near."""
PROMPT, ANSWER = BANDS * BAND, 40
MANY_CHARACTERS, LONG_WORD = 500, 12
"""Longer texts with blanks between words are compared by pairs of words: a sixth of the work."""
LONG_TEXT = 4000
"""Longer texts are compared by their clauses, so that the work for one row stays bounded."""
CHUNK = 50_000

_NUMBER = re.compile(r"[0-9]+")
_CLAUSE = re.compile(r"[\s、。,.!?;:()「」]+")


class Duplicates:
    """The check for both files, the training file first."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._rows: dict[int, tuple[Param, int]] = {}
        self._prompts: dict[int, tuple[int, int]] = {}
        self._where: list[tuple[Param, int]] = []
        self._sketches = array("I")
        self._numbers = array("Q")
        self.seen = 0

    def row(self, file: Param, row: Row) -> None:
        """Look at one row."""
        self.seen += 1
        if len(self._rows) >= MAX_EXACT_ROWS or not row.answers:
            return
        file_before, line_before = self._rows.setdefault(row.digest(), (file, row.line))
        if (file_before, line_before) != (file, row.line):
            kind = "duplicate" if file_before == file else "validation_overlap"
            self._found.add(file, kind, row.line, line_before)
            return
        if file == "training_file":
            self._contradicts(row)
        if len(self._where) < MAX_NEAR_ROWS:
            self._sketch(file, row)

    def done(self) -> None:
        """Name the rows that are nearly the same as an earlier one."""
        earlier: dict[int, int] = {}
        for first, second in self._near_pairs():
            earlier[second] = min(first, earlier.get(second, first))
        for second, first in sorted(earlier.items()):
            (file, line), (file_before, line_before) = self._where[second], self._where[first]
            kind = "near_duplicate" if file == file_before else "validation_near_overlap"
            self._found.add(file, kind, line, line_before)

    def limits(self) -> list[str]:
        """Say what was not compared."""
        if self.seen <= MAX_NEAR_ROWS:
            return []
        limit = (
            f"Near duplicates were looked for among the first {MAX_NEAR_ROWS:,} distinct rows, "
            f"exact ones and contradictions among the first {MAX_EXACT_ROWS:,}."
        )
        return [limit]

    def _contradicts(self, row: Row) -> None:
        answer = digest(row.answer)
        line_before, answer_before = self._prompts.setdefault(
            digest(row.prompt), (row.line, answer)
        )
        if answer != answer_before:
            self._found.add("training_file", "contradiction", row.line, line_before)

    def _sketch(self, file: Param, row: Row) -> None:
        self._where.append((file, row.line))
        self._sketches.extend(_minhash(row.prompt, PROMPT))
        self._sketches.extend(_minhash(row.answer, ANSWER))
        numbers = sorted(_NUMBER.findall(f"{row.prompt} {row.answer}"))
        self._numbers.append(digest(" ".join(numbers)))

    def _near_pairs(self) -> Iterator[tuple[int, int]]:
        """Yield (earlier, later) indices; the same pair perhaps more than once."""
        sketches = np.frombuffer(self._sketches, np.uint32).reshape(-1, PROMPT + ANSWER)  # [R, S]
        numbers = np.frombuffer(self._numbers, np.uint64)  # [R]
        for band in range(BANDS):
            keys = _band_keys(sketches[:, band * BAND : (band + 1) * BAND], numbers)
            for pairs in _candidates(keys):
                for start in range(0, len(pairs), CHUNK):
                    yield from _alike(sketches, pairs[start : start + CHUNK])


def _minhash(text: str, size: int) -> list[int]:
    sketch = RMinHash(num_perm=size, seed=1)
    sketch.update(_grams(text))
    values: list[int] = sketch.digest()
    return values


def _grams(text: str) -> list[str]:
    if len(text) > LONG_TEXT:
        return _CLAUSE.split(text)
    if len(text) > MANY_CHARACTERS and text.count(" ") * LONG_WORD > len(text):
        words = text.split()
        return [f"{first} {second}" for first, second in pairwise(words)]
    size = LATIN_GRAM if text.isascii() else GRAM
    return [text[i : i + size] for i in range(len(text) - size + 1)] or [text]


def _band_keys(band: NDArray[np.uint32], numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix a band's columns and the rows' numbers into one key for each row."""
    keys = numbers.copy()
    for column in band.T:
        keys = (keys ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _candidates(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Yield pairs [P, 2] of rows with equal keys: with the first and with the three before.

    Not all pairs: thousands of rows from one template would make millions.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else order
    sizes = np.diff(np.r_[begins, len(keys)])
    heads = np.repeat(begins, sizes)
    places = np.arange(len(keys))
    for before in (heads, *(np.maximum(heads, places - lag) for lag in (1, 2, 3))):
        differ = before < places
        yield np.stack([order[before[differ]], order[places[differ]]], axis=1)


def _alike(sketches: NDArray[np.uint32], pairs: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose prompts and answers are both near."""
    equal = sketches[pairs[:, 0]] == sketches[pairs[:, 1]]  # [P, S]
    near = (equal[:, :PROMPT].mean(axis=1) >= NEAR) & (equal[:, PROMPT:].mean(axis=1) >= NEAR)
    for first, second in pairs[near]:
        yield int(first), int(second)
