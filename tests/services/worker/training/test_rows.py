"""Rows as flat arrays: the same rows, and no memory of their own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from services.worker.training.data import Row
from services.worker.training.rows import gather


def made(count: int, tokens: int) -> Iterator[Row]:
    draw = np.random.default_rng(4)
    for line in range(1, count + 1):
        token_ids = draw.integers(0, 50_000, tokens + line % 3, dtype=np.int32)
        yield Row(line * 2, token_ids, np.arange(tokens // 2, tokens))


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def test_rows_come_back_as_they_were_and_leave_no_file(tmp_path: Path) -> None:
    laid = gather(made(7, 10), tmp_path)
    assert len(laid) == 7
    for row, expected in zip(laid, made(7, 10), strict=True):
        assert row.line == expected.line
        assert row.token_ids.tolist() == expected.token_ids.tolist()
        assert row.answers.tolist() == expected.answers.tolist()
        assert row.last_answer == (5, 10)
    assert laid.lengths.tolist() == [11, 12, 10, 11, 12, 10, 11]
    assert laid.tokens == sum(laid.lengths)
    assert list(tmp_path.iterdir()) == []


def test_the_hash_sees_tokens_answers_and_where_a_row_ends(tmp_path: Path) -> None:
    def sha256(*rows: tuple[list[int], list[int]]) -> str:
        found = [Row(1, np.array(ids, np.int32), np.array(answers)) for ids, answers in rows]
        return gather(found, tmp_path).sha256

    hashes = {
        sha256(([1, 2, 3], [2]), ([4, 5], [1])),
        sha256(([1, 2, 9], [2]), ([4, 5], [1])),
        sha256(([1, 2, 3], [1]), ([4, 5], [1])),
        sha256(([1, 2], [1]), ([3, 4, 5], [2])),
    }
    assert len(hashes) == 4
    assert sha256(([1, 2, 3], [2])) == sha256(([1, 2, 3], [2]))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    gather(made(50, 1000), tmp_path)
    before = anonymous_bytes()
    laid = gather(made(10_000, 1000), tmp_path)  # 50 MB on disk, 400 MB as Python's integers
    assert sum(int(row.token_ids[0]) for row in laid) > 0
    assert anonymous_bytes() - before < 5 << 20
