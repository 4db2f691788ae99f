"""Tokenised rows laid end to end in flat arrays, on disk: memory does not grow with the data set.

Token ids and answer marks are written to temporary files without a name and mapped for reading.
What is mapped has been written, so a full disk is an error of the write and never a SIGBUS.
"""

import hashlib
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from services.worker.training.data import Row


class TokenRows:
    """R rows of N tokens in all; a row is a view, made when it is asked for."""

    def __init__(
        self,
        token_ids: NDArray[np.int32],
        answers: NDArray[np.bool_],
        lengths: NDArray[np.int64],
        lines: NDArray[np.int64],
        sha256: str,
    ) -> None:
        self._token_ids = token_ids  # [N]
        self._answers = answers  # [N] whether a token carries a loss
        self._lines = lines  # [R]
        self.lengths = lengths
        """[R] tokens of each row."""
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)])
        """[R + 1] where each row's tokens begin."""
        self.sha256 = sha256
        """Hash of all token ids and answer marks, row by row."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Row:
        if not 0 <= number < len(self):
            raise IndexError(number)
        begin, end = self.offsets[number], self.offsets[number + 1]
        return Row(
            line=int(self._lines[number]),
            token_ids=self._token_ids[begin:end],
            answers=np.flatnonzero(self._answers[begin:end]),
        )

    @property
    def tokens(self) -> int:
        """N."""
        return int(self.offsets[-1])


class RowsWriter(AbstractContextManager["RowsWriter"]):
    """Takes rows one by one; OSError (ENOSPC) where the disk is full. Left, it is closed."""

    def __init__(self, folder: Path) -> None:
        """Open temporary files in ``folder``; what is mapped of them vanishes with the rows."""
        folder.mkdir(parents=True, exist_ok=True)
        self._token_ids = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._answers = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._lengths = array("q")
        self._lines = array("q")
        self._digest = hashlib.sha256()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._token_ids, self._answers):
            # Closing writes what is buffered, and fails again where the disk is full.
            with suppress(OSError):
                file.close()

    def add(self, row: Row) -> None:
        """Append ``row``."""
        marks = np.zeros(len(row), dtype=np.bool_)
        marks[row.answers] = True
        token_ids = np.ascontiguousarray(row.token_ids, dtype=np.int32)
        self._digest.update(len(row).to_bytes(8, "little"))
        for file, values in ((self._token_ids, token_ids), (self._answers, marks)):
            file.write(values.data)
            self._digest.update(values.data)
        self._lengths.append(len(row))
        self._lines.append(row.line)

    def finish(self) -> TokenRows:
        """Return what was written."""
        return TokenRows(
            token_ids=_mapped(self._token_ids, np.int32),
            answers=_mapped(self._answers, np.bool_),
            lengths=np.array(self._lengths, dtype=np.int64),
            lines=np.array(self._lines, dtype=np.int64),
            sha256=self._digest.hexdigest(),
        )


def gather(rows: Iterable[Row], folder: Path) -> TokenRows:
    """Write ``rows`` to temporary files in ``folder`` and return them as arrays."""
    with RowsWriter(folder) as writer:
        for row in rows:
            writer.add(row)
        return writer.finish()


def _mapped(file: IO[bytes], dtype: type[np.generic]) -> NDArray[Any]:
    """Map what was written to ``file``; an empty file cannot be mapped."""
    file.flush()
    if file.tell() == 0:
        return np.empty(0, dtype=dtype)
    # A plain array over the map: a memmap object costs five times as much at every slice.
    return np.asarray(np.memmap(file, dtype=dtype, mode="r"))
