"""Normalised rows become token ids and loss masks, as a stream; shared/chat says how."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from shared.chat.encoder import ChatEncoder, Unmaskable
from shared.files.normalised import NormalisedRow

MAX_NAMED_ROWS = 20
"""Of rows that cannot be trained; the rest are counted."""


class BadData(Exception):
    """A row cannot be trained on; the message names its line and never its text."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, eq=False)
class Row:
    """A tokenised row."""

    line: int
    token_ids: NDArray[np.int32]
    answers: NDArray[np.int64]
    """Indices of the tokens that carry a loss, ascending; never 0."""

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def last_answer(self) -> tuple[int, int]:
        """First and one-past-last index of the final run of answer tokens."""
        gaps = np.flatnonzero(np.diff(self.answers) > 1)
        start = self.answers[gaps[-1] + 1] if len(gaps) else self.answers[0]
        return int(start), int(self.answers[-1]) + 1


def normalised_rows(path: Path, param: str) -> Iterator[NormalisedRow]:
    """Parse a rows.jsonl file line by line; raise BadData naming the line of the first bad row."""
    number = 0
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                yield NormalisedRow.model_validate_json(text)
            except ValidationError as error:
                reason = error.errors()[0]["type"]
                raise BadData(f"Row {number} is not a normalised row ({reason}).", param) from None
    if not number:
        raise BadData("The file has no rows.", param)


def encoded_rows(path: Path, encoder: ChatEncoder, limit: int, param: str) -> Iterator[Row]:
    """Read a rows.jsonl file as a stream of token ids of at most ``limit`` a row.

    Raises BadData behind the last row, naming all rows that cannot be trained (the first
    MAX_NAMED_ROWS of them): they were named before the job was queued, so none is expected.
    """
    refused: list[str] = []
    count = 0
    for row in normalised_rows(path, param):
        try:
            encoded = encoder.encode([m.model_dump() for m in row.messages], limit)
        except Unmaskable as error:
            count += 1
            if count <= MAX_NAMED_ROWS:
                refused.append(f"Line {row.line}: {error}.")
            continue
        yield Row(
            row.line,
            np.array(encoded.token_ids, dtype=np.int32),
            np.array(encoded.answers, dtype=np.int64),
        )
    if count > MAX_NAMED_ROWS:
        refused.append(f"And {count - MAX_NAMED_ROWS} more.")
    if refused:
        raise BadData(" ".join(refused), param)
