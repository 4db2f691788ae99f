"""Which rows of a set each process of a team has: decided once, so that no states are exchanged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.worker.training.plan import Lengths
from services.worker.training.rows import TokenRows, gather
from services.worker.training.team import Team


def deal(lengths: Lengths, rank: int, size: int) -> NDArray[np.int64]:
    """Return the numbers of the rows of ``rank``, ascending.

    By length, one to each in turn: all have equally many, and about as much to compute. The first
    has one wherever there is any.
    """
    by_length = np.argsort(np.asarray(lengths), kind="stable")
    return np.sort(by_length[rank::size])


class Share:
    """The rows of one set that this process has; ``rows`` numbers them anew."""

    def __init__(self, rows: TokenRows, team: Team, folder: Path) -> None:
        """Copy this process's part of ``rows`` to nameless files in ``folder``; alone, copy none.

        Raises OSError (ENOSPC) where they have no room.
        """
        self._all = rows
        self.rows = rows
        self._places: NDArray[np.int32] | None = None
        """[R] each row's number among this process's; -1: it is another's."""
        if team.size > 1:
            mine = deal(rows.lengths, team.rank, team.size)
            self.rows = gather((rows[number] for number in mine.tolist()), folder)
            self._places = np.full(len(rows), -1, dtype=np.int32)
            self._places[mine] = np.arange(len(mine))

    def members(self, batch: Sequence[int]) -> Sequence[int]:
        """Return those of ``batch`` that are this process's, as it numbers them; maybe none."""
        if self._places is None:
            return batch
        places = self._places[list(batch)]
        found: list[int] = places[places >= 0].tolist()
        return found

    def answer_tokens(self, batch: Sequence[int]) -> int:
        """Answer tokens of all of ``batch``, whoever has them."""
        return sum(len(self._all[member].answers) for member in batch)
