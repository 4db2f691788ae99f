"""Time as a value that is passed in: policies and tests take a clock, they do not read one."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Seconds on a monotonic scale (``time.monotonic`` in production)."""


def now() -> datetime:
    """Return the wall-clock time in UTC."""
    return datetime.now(UTC)
