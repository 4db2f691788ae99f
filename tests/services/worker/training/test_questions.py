"""What the served model is asked: rows that nothing was trained on, with their checker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.worker.training.dataset import DataReader, DataSet, HeldOut
from services.worker.training.questions import MOST_ASKED, draw, write_questions
from services.worker.training.report import Reporter
from services.worker.training.rows import TokenRows
from shared.chat.encoder import ChatEncoder
from tests.services.worker.training.attempts import MakeSpec
from tests.services.worker.training.conftest import chat, silent, write_rows

Read = Callable[..., DataSet]


@pytest.fixture
def read(tiny: Path, make_spec: MakeSpec, tmp_path: Path) -> Read:
    reader = DataReader(ChatEncoder(tiny), 256, tmp_path, Reporter(silent, lambda: None))

    def read(rows: list[dict[str, Any]], **asked: Any) -> DataSet:
        path = write_rows(tmp_path / "training.jsonl", rows)
        return reader.read(make_spec(train_rows=path, **asked))

    return read


def facts(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows of which none is like another, at lines 10, 20, …"""
    return [
        chat(f"{word}{word[::-1]}{word.upper()}?", f"code {n}", line=10 * (n - first + 1))
        for n in range(first, first + count)
        for word in [f"{n * n * 7919:x}-{n}"]
    ]


def lines_of(rows: TokenRows) -> list[int]:
    return [row.line for row in rows]


def asked_lines(data: DataSet) -> list[int]:
    questions = draw(data.held_out, seed=7)
    assert questions
    return [question.line for question in questions.questions]


def test_test_rows_are_asked_where_there_are_some(read: Read) -> None:
    data = read(facts(300))
    assert data.held_out.on == "test"
    asked = asked_lines(data)
    assert asked == lines_of(data.test)
    assert set(asked).isdisjoint([*lines_of(data.train), *lines_of(data.validation)])


def test_else_validation_rows_of_the_training_file_or_of_their_own(
    read: Read, tmp_path: Path
) -> None:
    data = read(facts(40))
    assert (data.held_out.on, asked_lines(data)) == ("validation", lines_of(data.validation))
    validation = write_rows(tmp_path / "validation.jsonl", facts(3, first=100))
    data = read(facts(40), validation_rows=validation)
    assert (data.held_out.on, asked_lines(data)) == ("validation", [10, 20, 30])
    data = read(facts(40), validation_rows=validation, held_out=5)
    assert (data.held_out.on, asked_lines(data)) == ("test", lines_of(data.test))


def test_rows_that_are_also_trained_are_never_asked(read: Read, tmp_path: Path) -> None:
    data = read([row | {"group": "one"} for row in facts(12)])
    assert len(data.validation) == 1
    assert write_questions(tmp_path / "none", data.held_out, seed=7) is None
    assert not (tmp_path / "none").exists()


def test_at_most_twenty_are_drawn_by_the_seed_in_the_order_of_their_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", facts(100))
    held_out = HeldOut("test", path, range(40, 100), 100)
    first, again, other = (draw(held_out, seed) for seed in (1, 1, 2))
    assert first
    assert other
    assert first == again != other
    lines = [question.line for question in first.questions]
    assert len(lines) == MOST_ASKED
    assert lines == sorted(lines)
    assert min(lines) > 400
    assert first.questions[0].messages[-1].role == "user"
    assert first.questions[0].expected == f"code {lines[0] // 10 - 1}"


def test_the_checker_is_chosen_by_the_whole_file_and_what_cannot_be_asked_is_left_out(
    tmp_path: Path,
) -> None:
    labels = [row | chat(f"{n}?", f"label {n % 12}", line=n) for n, row in enumerate(facts(198))]
    only_answered = {"line": 900, "messages": [{"role": "assistant", "content": "label 1"}]}
    path = write_rows(tmp_path / "rows.jsonl", [*labels, only_answered])
    questions = draw(HeldOut("test", path, range(190, 199), 199), seed=1)
    assert questions
    # Nine answers alone are too few to be told from facts.
    assert (questions.checker, len(questions.questions)) == ("label", 8)


def test_related_rows_are_one_cluster(tmp_path: Path) -> None:
    rows = [row | {"group": f"{n // 3}"} for n, row in enumerate(facts(6))]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    questions = draw(HeldOut("test", path, range(6), 6), seed=1)
    assert questions
    assert len({question.cluster for question in questions.questions}) == 2
