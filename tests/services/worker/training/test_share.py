"""How rows are divided between processes: each row once, evenly by number and by length."""

from random import Random

import numpy as np
import pytest

from services.worker.training.share import deal


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("rows", [1, 7, 200])
def test_every_row_is_one_processs_and_all_have_as_much_to_do(rows: int, size: int) -> None:
    drawn = Random(rows)
    lengths = [int(drawn.lognormvariate(5, 1)) for _ in range(rows)]
    shares = [deal(lengths, rank, size).tolist() for rank in range(size)]
    assert sorted(row for share in shares for row in share) == list(range(rows))
    assert all(share == sorted(share) for share in shares)
    counts = [len(share) for share in shares]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1
    tokens = [int(np.array(lengths)[share].sum()) for share in shares]
    assert max(tokens) - min(tokens) <= max(lengths)
