"""The loop: every few seconds each duty in turn; one that fails is logged and comes again."""

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from shared.telemetry import log_event

log = logging.getLogger(__name__)


class Duty(Protocol):
    """One thing the scheduler does in every sweep."""

    name: str

    def run(self) -> None:
        """Do what is due now; may raise anything."""


def sweep(duties: Sequence[Duty]) -> list[str]:
    """Run every duty once; return the names of those that failed."""
    return [duty.name for duty in duties if not _done(duty)]


def sweep_until(stop: threading.Event, duties: Sequence[Duty], interval_seconds: float) -> None:
    """Sweep until ``stop`` is set, which also ends the waiting."""
    while True:
        sweep(duties)
        if stop.wait(interval_seconds):
            return


def _done(duty: Duty) -> bool:
    try:
        duty.run()
    except Exception:
        log.warning("duty failed", extra=log_event("duty_failed", duty=duty.name), exc_info=True)
        return False
    return True
