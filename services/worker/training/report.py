"""What the trainer says while it works: its messages, and a sign of life where work takes long."""

import time
from collections.abc import Callable

from services.worker.spec import Phase, PreparingMessage, TrainerMessage

Emit = Callable[[TrainerMessage], None]
SILENCE_SECONDS = 1.0
"""After so long without a message, the next piece of work is reported."""


class Reporter:
    """Passes messages on; asked between two pieces of work, obeys requests and breaks silence."""

    def __init__(self, emit: Emit, poll: Callable[[], None]) -> None:
        """``poll`` raises Interrupted when the job must end."""
        self._emit = emit
        self._poll = poll
        self._last = time.monotonic()
        self.step = 0
        """Last optimiser step done."""

    def emit(self, message: TrainerMessage) -> None:
        """Send ``message``."""
        self._emit(message)
        self._last = time.monotonic()

    def working(self, phase: Phase, done: int, total: int) -> None:
        """Call between two pieces of work; raises Interrupted.

        After a second without a message it says how much of ``total`` is ``done``.
        """
        self._poll()
        if time.monotonic() - self._last >= SILENCE_SECONDS:
            self.emit(PreparingMessage(phase=phase, done=done, total=total, step=self.step))
