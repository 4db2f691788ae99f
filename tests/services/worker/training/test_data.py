"""Rows become token ids as a stream; a tenth of the rows is held out, in whole groups of equals."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.training.data import (
    BadData,
    Row,
    encoded_rows,
    held_out,
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


@pytest.mark.parametrize(("rows", "wanted"), [(2, 1), (10, 1), (24, 2), (400, 40), (9000, 256)])
def test_a_tenth_of_different_rows_is_held_out_and_never_too_much(rows: int, wanted: int) -> None:
    assert held_out([f"{n:05}" for n in range(rows)]).sum() == wanted


@pytest.mark.parametrize(
    ("facts", "times", "trained"),
    [(10, 10, 90), (20, 5, 90), (3, 40, 80), (2, 50, 50), (30, 300, 8700)],
)
def test_of_facts_pasted_many_times_most_are_trained(facts: int, times: int, trained: int) -> None:
    out = held_out([f"{n:05}" for n in range(facts)] * times)
    assert (~out).sum() == trained


def test_the_split_depends_on_content_and_not_on_order() -> None:
    digests = [f"{n % 17:03}" for n in range(50)]
    assert (held_out(digests)[::-1] == held_out(digests[::-1])).all()


def test_of_one_distinct_row_none_is_held_out() -> None:
    assert not held_out(["same"] * 12).any()


@given(st.lists(st.integers(0, 30).map(str), min_size=2, max_size=300))
def test_equal_rows_stay_on_one_side_and_most_rows_are_trained(digests: list[str]) -> None:
    out = held_out(digests)
    held = {d for d, o in zip(digests, out, strict=True) if o}
    trained = {d for d, o in zip(digests, out, strict=True) if not o}
    assert not held & trained
    assert trained
    assert bool(held) == (len(set(digests)) > 1)
    assert out.sum() <= len(digests) / 2
    a_tenth = out.sum() * 10 <= len(digests) + 5
    assert a_tenth or out.sum() == min(Counter(digests).values())  # the smallest group alone
