"""Pairs of texts that are nearly the same, among hundreds of thousands.

MinHash over character n-grams of prompt and answer, banded (Broder 1997; Leskovec et al., Mining of
Massive Datasets, ch. 3). Rows with other numbers in them are never near: "part 12" and "part 13"
differ in one character and in everything that matters.
"""

import re
from array import array
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from shared.datareport.rows import digest

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


class Sketches:
    """What is kept of each row: about 700 bytes."""

    def __init__(self) -> None:
        self._sketches = array("I")
        self._numbers = array("Q")

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, prompt: str, answer: str) -> None:
        """Take in one row, in the form of ``rows.comparable``."""
        self._sketches.extend(_minhash(prompt, PROMPT))
        self._sketches.extend(_minhash(answer, ANSWER))
        numbers = sorted(_NUMBER.findall(f"{prompt} {answer}"))
        self._numbers.append(digest(" ".join(numbers)))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield (earlier, later) near rows; the same pair perhaps more than once.

        Of many rows that are all near one another only some pairs: enough to join them.
        """
        sketches, numbers = self._arrays()
        for band in range(BANDS):
            keys = _band_keys(sketches[:, band * BAND : (band + 1) * BAND], numbers)
            for pairs in _candidates(keys):
                for start in range(0, len(pairs), CHUNK):
                    yield from _alike(sketches, pairs[start : start + CHUNK])

    def pairs_across(self, begin: int) -> Iterator[tuple[int, int]]:
        """Yield every near pair of a row before ``begin`` and one from there on, in order.

        Compares all with all: a millisecond for a row against 10,000.
        """
        sketches, numbers = self._arrays()
        for later in range(begin, len(self)):
            same = np.flatnonzero(numbers[:begin] == numbers[later])
            for start in range(0, len(same), CHUNK):
                earlier = same[start : start + CHUNK]
                yield from _alike(
                    sketches, np.stack([earlier, np.full_like(earlier, later)], axis=1)
                )

    def _arrays(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        sketches = np.frombuffer(self._sketches, np.uint32).reshape(-1, PROMPT + ANSWER)  # [R, S]
        return sketches, np.frombuffer(self._numbers, np.uint64)  # [R]


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
