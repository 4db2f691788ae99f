"""Normalised rows become token ids with the base folder's own chat template and tokenizer.

Only tokens that serving would generate carry a loss: an assistant message's text and the
end-of-turn token behind it, for messages with weight 1.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import PreTrainedTokenizerBase

VALIDATION_SHARE = 10
"""One row in this many is kept for validation when no validation file is given."""
MAX_CARVED_ROWS = 256
"""More rows than this make an evaluation slower but hardly more exact."""


class BadData(Exception):
    """A row cannot be trained on; the message names its line and never its text."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class Message(BaseModel):
    """One turn of a normalised row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str
    weight: Literal[0, 1] = 1


class NormalisedRow(BaseModel):
    """One line of rows.jsonl; ``line`` is the line number in the user's own file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    messages: tuple[Message, ...]

    def digest(self) -> str:
        """Hash of the content alone, so that equal rows at different lines are equal."""
        text = json.dumps([m.model_dump() for m in self.messages], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


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


def read_rows(path: Path, param: str) -> list[NormalisedRow]:
    """Parse a whole rows.jsonl file."""
    return list(normalised_rows(path, param))


def carve_validation(
    rows: Sequence[NormalisedRow],
) -> tuple[list[NormalisedRow], list[NormalisedRow]]:
    """Split ``rows`` into training and validation rows; see ``held_out``."""
    chosen = held_out([row.digest() for row in rows])
    if not chosen.any():
        return list(rows), list(rows[:1])
    train = [row for row, out in zip(rows, chosen, strict=True) if not out]
    return train, [row for row, out in zip(rows, chosen, strict=True) if out]


def held_out(digests: Sequence[str]) -> NDArray[np.bool_]:
    """Say which rows are for validation, decided by the rows' hashes alone.

    A tenth of the rows, at least one and at most MAX_CARVED_ROWS. Equal rows stay on one side, or
    validation would measure what was trained on. Of one distinct row none is held out: such a file
    validates on itself.
    """
    wanted = min(max(1, round(len(digests) / VALIDATION_SHARE)), MAX_CARVED_ROWS)
    order = sorted(set(digests))
    chosen = set(order[: min(wanted, len(order) - 1)])
    return np.array([digest in chosen for digest in digests], dtype=np.bool_)


def tokenise(
    rows: Iterable[NormalisedRow],
    tokenizer: PreTrainedTokenizerBase,
    context_length: int,
    param: str,
) -> list[Row]:
    """Turn rows into token ids; raise BadData for the first that is too long or has no answer."""
    return [_tokenised(row, tokenizer, context_length, param) for row in rows]


def encoded_rows(
    path: Path, tokenizer: PreTrainedTokenizerBase, context_length: int, param: str
) -> Iterator[Row]:
    """Read a rows.jsonl file as a stream of token ids; raises BadData like ``tokenise``."""
    for row in normalised_rows(path, param):
        yield _tokenised(row, tokenizer, context_length, param)


def encoder_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all that decides which token ids a row becomes."""
    state = str(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    return hashlib.sha256(f"{tokenizer.chat_template}\n{state}".encode()).hexdigest()


def _tokenised(
    row: NormalisedRow, tokenizer: PreTrainedTokenizerBase, context_length: int, param: str
) -> Row:
    token_ids, answers = _encode(row, tokenizer)
    if len(token_ids) > context_length:
        raise BadData(
            f"Line {row.line} has {len(token_ids)} tokens; at most {context_length} fit.", param
        )
    if not answers:
        raise BadData(f"Line {row.line} has no assistant message to learn from.", param)
    return Row(row.line, np.array(token_ids, dtype=np.int32), np.array(answers, dtype=np.int64))


def _encode(row: NormalisedRow, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    messages = [m.model_dump(include={"role", "content"}) for m in row.messages]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = [
        _answer_span(messages, index, text, tokenizer)
        for index, message in enumerate(row.messages)
        if message.role == "assistant" and message.weight
    ]
    # A token that begins inside the prompt cannot be generated by serving: no loss on it.
    answers = [
        index
        for index, (start, end) in enumerate(encoded["offset_mapping"])
        if index and any(first <= start and end <= last for first, last in spans)
    ]
    return encoded["input_ids"], answers


def _answer_span(
    messages: list[dict[str, Any]], index: int, text: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, int]:
    """Characters of ``text`` that the assistant writes in turn ``index``, end of turn included."""
    prompt: str = tokenizer.apply_chat_template(
        messages[:index], tokenize=False, add_generation_prompt=True
    )
    upto: str = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
    end_of_turn = str(tokenizer.eos_token)
    closing = text.rfind(end_of_turn, len(prompt), len(upto))
    return len(prompt), closing + len(end_of_turn) if closing >= 0 else len(upto)
