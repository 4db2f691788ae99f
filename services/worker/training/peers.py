"""The other processes of a team, seen by the one that leads it.

They are the same program with a rank of their own: the leader hands every spec on to them, and they
say nothing but what made them fail. None outlives the leader (parent-death signal, end of stdin),
and the leader ends with the first of them that does.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from services.worker.spec import ErrorMessage, trainer_message
from shared.telemetry import log_event

logger = logging.getLogger(__name__)

Fail = Callable[[ErrorMessage], object]


class Peers:
    """Ranks 1 and up of a team of ``size``; of one process there are none."""

    def __init__(self, arguments: Sequence[str], port: int, size: int, fail: Fail) -> None:
        """Start them with ``arguments``, from the main thread: they die with the one that did.

        They meet at ``port``. ``fail`` reports what ends one of them, and ends this process.
        """
        command = [sys.executable, "-m", "services.worker.training", *arguments]
        command += ["--parent", str(os.getpid()), "--port", str(port)]
        self._fail = fail
        self._processes = [
            # A new program, never a fork of this one: CUDA does not survive a fork.
            subprocess.Popen(
                [*command, "--rank", str(rank)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            for rank in range(1, size)
        ]
        for rank, process in enumerate(self._processes, start=1):
            threading.Thread(target=self._watch, args=(rank, process), daemon=True).start()

    def tell(self, line: str) -> None:
        """Hand a spec on to all."""
        for process in self._processes:
            assert process.stdin is not None  # noqa: S101  it was opened with a pipe
            with suppress(BrokenPipeError):  # whoever watches it ends this process
                process.stdin.write(line)
                process.stdin.flush()

    def _watch(self, rank: int, process: "subprocess.Popen[str]") -> None:
        """Wait for the end of ``rank``, and end this process as it ended."""
        assert process.stdout is not None  # noqa: S101  it was opened with a pipe
        for line in process.stdout:
            message = trainer_message.validate_json(line)
            if isinstance(message, ErrorMessage):
                self._fail(message)
        status = process.wait()
        data = {"rank": rank, "status": status}
        logger.error("another process of the team ended", extra=log_event("rank_ended", **data))
        if status == -signal.SIGKILL:
            # By the kernel, for memory, or from outside: the supervisor tells these apart by it.
            os.kill(os.getpid(), signal.SIGKILL)
        words = f"Training process {rank} ended with status {status}."
        self._fail(ErrorMessage(code="crash", message=words))
