from collections import Counter

import pytest

from examples.rows import Row
from examples.stdlib.build import Function, build, split

pytestmark = pytest.mark.slow  # parses the standard library


@pytest.fixture(scope="module")
def rows() -> tuple[list[Row], list[Row]]:
    return build()


@pytest.fixture(scope="module")
def functions() -> tuple[list[Function], list[Function]]:
    return split()


def test_the_set_is_large_and_even_enough(rows) -> None:
    train, held_out = rows
    modules = Counter(row["messages"][1]["content"] for row in train)
    assert len(train) >= 400
    assert len(modules) >= 8
    assert max(modules.values()) / len(train) < 0.15
    assert {row["messages"][1]["content"] for row in held_out} == set(modules)


def test_no_held_out_sentence_is_trained_on(rows) -> None:
    train, held_out = rows
    trained = {row["messages"][0]["content"].casefold() for row in train}
    assert len(held_out) >= 40
    assert not trained & {row["messages"][0]["content"].casefold() for row in held_out}


def test_no_held_out_function_is_trained_on(functions) -> None:
    train, held_out = functions
    trained = {(function.module, function.name) for function in train}
    assert not trained & {(function.module, function.name) for function in held_out}


def test_building_again_gives_the_same_rows(rows, functions) -> None:
    train, held_out = functions
    assert [row["messages"][1]["content"] for row in rows[0]] == [f.module for f in train]
    assert all(
        f.sentence in row["messages"][0]["content"]
        for f, row in zip(held_out, rows[1], strict=True)
    )
