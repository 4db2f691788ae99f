"""Stacks in which everything is real but vLLM: they start in seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import conftest
from tests.running_stack import RunningStack

LIGHT = {"PYTHONPATH": str(Path(__file__).parent / "light")}


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with conftest.short_folder() as folder:
        yield folder


@pytest.fixture
def fresh_stack() -> Iterator[RunningStack]:
    """A stack that has not been started."""
    stack = RunningStack(LIGHT)
    yield stack
    stack.remove()


@pytest.fixture(scope="module")
def light_stack() -> Iterator[RunningStack]:
    """A running stack that the tests of one file share; each leaves it running."""
    stack = RunningStack(LIGHT)
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()
