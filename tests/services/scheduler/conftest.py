"""The workshop of the worker's tests serves the scheduler's too."""

import pytest

from tests.services.scheduler.rows import Comparisons
from tests.services.worker.conftest import inference, workshop

__all__ = ["inference", "workshop"]


@pytest.fixture
def comparisons(workshop):
    return Comparisons(workshop)
