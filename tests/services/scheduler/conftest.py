"""The workshop of the worker's tests serves the scheduler's too."""

from tests.services.worker.conftest import inference, workshop

__all__ = ["inference", "workshop"]
