"""The first batch as the model sees it: whoever reads it sees what is learnt, and what is not.

Decoded is what the training step takes, token ids and loss mask; nothing is rendered a second time.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from services.worker.spec import FirstBatchMessage
from services.worker.training.data import Row
from services.worker.training.plan import Plan
from services.worker.training.rows import TokenRows
from shared.jobs.examples import BatchRow, Span

SHOWN_ROWS = 4
SHOWN_TOKENS = 1024
"""Of each row, from its beginning."""
Decode = Callable[[Sequence[int]], str]


def first_batch(rows: TokenRows, plan: Plan, decode: Decode) -> FirstBatchMessage:
    """Show the first rows of step 1's batch, whichever step an attempt goes on from."""
    members = plan.batch(1)[:SHOWN_ROWS]
    return FirstBatchMessage(rows=tuple(_shown(rows[member], decode) for member in members))


def _shown(row: Row, decode: Decode) -> BatchRow:
    learnt = np.zeros(len(row), dtype=np.bool_)
    learnt[row.answers] = True
    end = min(len(row), SHOWN_TOKENS)
    changes = np.flatnonzero(np.diff(learnt[:end])) + 1
    # Tokens are decoded together: one alone may be a part of a character.
    spans = [
        Span(text=decode(row.token_ids[begin:stop].tolist()), learnt=bool(learnt[begin]))
        for begin, stop in pairwise([0, *changes.tolist(), end])
    ]
    if end < len(row):
        whole = spans[-1].text.rstrip("\N{REPLACEMENT CHARACTER}")  # it may end inside one
        spans[-1] = spans[-1].model_copy(update={"text": whole})
    return BatchRow(line=row.line, tokens=len(row), spans=tuple(spans))
