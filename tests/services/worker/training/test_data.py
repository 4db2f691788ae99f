"""Rows become token ids as a stream; what cannot be trained is named by its line."""

from pathlib import Path

import pytest

from services.worker.training.data import (
    BadData,
    Row,
    encoded_rows,
    normalised_rows,
)
from shared.chat.encoder import ChatEncoder
from tests.services.worker.training.conftest import chat, write_rows


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> ChatEncoder:
    return ChatEncoder(tiny)


def encoded(path: Path, encoder: ChatEncoder, *rows: dict[str, object]) -> list[Row]:
    return list(
        encoded_rows(write_rows(path / "rows.jsonl", list(rows)), encoder, 256, "training_file")
    )


def test_last_answer_is_the_final_run(tmp_path: Path, encoder: ChatEncoder) -> None:
    turns = [("user", "a"), ("assistant", "first"), ("user", "b"), ("assistant", "last")]
    messages = [{"role": role, "content": text} for role, text in turns]
    (row,) = encoded(tmp_path, encoder, {"line": 1, "messages": messages})
    start, end = row.last_answer
    answer = encoder.encode([*messages[:2]]).answers
    assert [int(i) for i in row.answers[: len(answer)]] == answer
    assert list(row.token_ids[start:end]) == [row.token_ids[i] for i in row.answers[len(answer) :]]


def test_every_row_that_cannot_be_trained_is_named_by_its_line_and_none_is_quoted(
    tmp_path: Path, encoder: ChatEncoder
) -> None:
    rows = [
        chat("short", "ok", line=3),
        chat("秘密" * 40, "ok", line=8),
        chat("q", "a", line=9, weight=0),
        chat("short", "ok", line=11),
        chat("秘密" * 99999, "ok", line=15),
    ]
    with pytest.raises(BadData) as raised:
        encoded(tmp_path, encoder, *rows)
    said = str(raised.value)
    assert [f"Line {line}:" in said for line in (3, 8, 9, 11, 15)] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert "秘" not in said
    assert raised.value.param == "training_file"


def test_many_rows_that_cannot_be_trained_are_counted(tmp_path: Path, encoder: ChatEncoder) -> None:
    rows = [chat("long" * 99, "ok", line=line) for line in range(1, 51)]
    with pytest.raises(BadData, match=r"Line 20: .* And 30 more\.$"):
        encoded(tmp_path, encoder, *rows)


def test_malformed_row_is_named_and_not_quoted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [chat("q", "a"), {"line": 2, "messages": "秘密"}])
    with pytest.raises(BadData) as raised:
        list(normalised_rows(path, "training_file"))
    assert "Row 2" in str(raised.value)
    assert "秘密" not in str(raised.value)


def test_empty_file_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no rows"):
        list(normalised_rows(write_rows(tmp_path / "rows.jsonl", []), "training_file"))
