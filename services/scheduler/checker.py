"""Handle on a warm checker process: a job's spec in, what was found out, killed at need.

It is started from the thread that uses it, because the parent-death signal that the checker asks
for follows the parent's *thread*.
"""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait

from pydantic import TypeAdapter, ValidationError

from services.scheduler.checking.spec import CheckBroke, CheckResult, CheckSpec

COMMAND = (sys.executable, "-m", "services.scheduler.checking")
LARGEST_ANSWER = 2**20
ONE_THREAD = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Beside chats and training a check takes one core at most."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

log = logging.getLogger(__name__)
_line: TypeAdapter[CheckResult | CheckBroke] = TypeAdapter(CheckResult | CheckBroke)


class CheckFailed(Exception):
    """The check ended without a result: crashed, killed, too large, too slow."""


class Abandoned(Exception):
    """Nobody waits for the result any more."""


def checker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without our settings: the checker gets no credentials."""
    kept = {name: value for name, value in environment.items() if not name.startswith("TAILOR_")}
    return kept | ONE_THREAD | OFFLINE


class Checker:
    """At most one process, kept warm from one job to the next; for one thread."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], memory_mb: int
    ) -> None:
        self._command = [*command, "--parent", str(os.getpid()), "--memory-mb", str(memory_mb)]
        self._environment = dict(environment)
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process unless it runs; returns before it has loaded what it needs."""
        if self._process is not None and self._process.poll() is None:
            return
        self.kill()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )

    def check(
        self, spec: CheckSpec, seconds: float, poll_seconds: float, wanted: Callable[[], bool]
    ) -> CheckResult:
        """Return what is in the files; raise CheckFailed, or Abandoned as soon as not ``wanted``.

        In both cases the process is killed, and the next check begins with a fresh one.
        """
        self.start()
        try:
            answer = self._ask(spec, time.monotonic() + seconds, poll_seconds, wanted)
        except BaseException:
            self.kill()
            raise
        if isinstance(answer, CheckBroke):
            raise CheckFailed(answer.broke)
        if answer.peak_mb > self._memory_mb / 2:
            # What one large file left behind must not be the next one's lack.
            self.kill()
        return answer

    def kill(self) -> None:
        """End the process; harmless when repeated."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _ask(
        self, spec: CheckSpec, deadline: float, poll_seconds: float, wanted: Callable[[], bool]
    ) -> CheckResult | CheckBroke:
        process = self._process
        assert process is not None and process.stdin and process.stdout  # noqa: S101, PT018  just started
        try:
            process.stdin.write(spec.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise CheckFailed(f"ended with status {process.wait()}") from None
        answer = b""
        while not answer.endswith(b"\n"):
            # Not select.select, which knows file descriptors below 1,024 only.
            if not wait([process.stdout.fileno()], poll_seconds):
                self._go_on(deadline, wanted)
                continue
            part = os.read(process.stdout.fileno(), 2**16)
            answer += part
            if not part or len(answer) > LARGEST_ANSWER:
                process.kill()
                raise CheckFailed(f"ended with status {process.wait()}")
        try:
            return _line.validate_json(answer)
        except ValidationError:
            raise CheckFailed("said something that is no result") from None

    @staticmethod
    def _go_on(deadline: float, wanted: Callable[[], bool]) -> None:
        if not wanted():
            raise Abandoned
        if time.monotonic() > deadline:
            raise CheckFailed("took too long")
