"""Handle on the warm trainer process: a spec in, JSON lines out, its whole group killed at need.

It is started from the main thread of the process that runs the job, because the parent-death signal
that the trainer asks for follows the parent's *thread*. It gets no database or Redis credentials.
"""

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from pydantic import ValidationError

from services.worker.spec import (
    ReadyMessage,
    StoppedMessage,
    TrainerMessage,
    TrainSpec,
    trainer_message,
)
from shared.telemetry import log_event

EXIT_SECONDS = 5.0
CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")
KERNEL_EVENTS = Path("/proc/vmstat")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exited:
    """The trainer process ended (``returncode`` as of subprocess: negative for a signal)."""

    returncode: int
    oom_killed: bool
    """The kernel killed somebody for memory meanwhile."""


Sink = Callable[[TrainerMessage | Exited], None]


def oom_kills() -> int:
    """Return the kernel's count of out-of-memory kills, of our control group where it has one."""
    source = CGROUP_EVENTS if CGROUP_EVENTS.exists() else KERNEL_EVENTS
    counts = dict(line.split() for line in source.read_text().splitlines())
    return int(counts.get("oom_kill", 0))


class Trainer:
    """At most one trainer process, kept warm between jobs of the same base model."""

    def __init__(
        self,
        command: Sequence[str],  # of a process that takes --parent and ends with that parent
        environment: Mapping[str, str],
        jobs_per_process: int,
        count_oom_kills: Callable[[], int] = oom_kills,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._jobs_per_process = jobs_per_process
        self._count_oom_kills = count_oom_kills
        self._process: subprocess.Popen[str] | None = None
        self._base: str | None = None
        self._jobs = 0
        self._oom_kills_before = 0
        self._sink: Sink = _ignore

    @property
    def busy(self) -> bool:
        """True from handing over a job until ``finish_job`` or ``kill``."""
        return self._process is not None and self._sink is not _ignore

    def train(self, spec: TrainSpec, sink: Sink) -> None:
        """Hand over a job; ``sink`` gets the trainer's messages and end, from another thread."""
        if not self._fit_for(spec.base_model):
            self.kill()
        self._sink = sink
        self._oom_kills_before = self._count_oom_kills()
        process = self._process or self._start()
        self._base = spec.base_model
        self._jobs += 1
        self._send(process, spec.model_dump_json())

    def command(self, word: Literal["stop", "abort"]) -> None:
        """Ask for the end of the job: ``stop`` saves a checkpoint first, ``abort`` does not."""
        process = self._process
        if process:
            self._send(process, f'{{"command": "{word}"}}')

    def finish_job(self) -> None:
        """Drop the job's sink: whatever the idle process still says belongs to nobody."""
        self._sink = _ignore

    def kill(self) -> None:
        """End the process and its whole group at once; safe from any thread, and when repeated."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug(
                "the trainer's group is gone already", extra=log_event("trainer_gone_already")
            )
        try:
            process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            # Stuck inside the kernel; whoever had it killed must go on without waiting for it.
            log.error(
                "a killed trainer has not ended",
                extra=log_event("trainer_not_ended", pid=process.pid),
            )
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def _fit_for(self, base_model: str) -> bool:
        process = self._process
        return (
            process is not None
            and process.poll() is None
            and self._base == base_model
            and self._jobs < self._jobs_per_process
        )

    def _start(self) -> subprocess.Popen[str]:
        self._jobs = 0
        process = subprocess.Popen(
            [*self._command, "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._process = process
        threading.Thread(
            target=self._read, args=(process,), name="trainer-output", daemon=True
        ).start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Pass the process's lines on until it ends, then say how it ended."""
        assert process.stdout is not None  # noqa: S101  it was opened with a pipe
        with process.stdout as lines:
            for message in _messages(lines):
                if isinstance(message, StoppedMessage) and message.ends:
                    self._base = None  # fit for no other job, although it may take a while to end
                self._tell(process, message)
        try:
            returncode = process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            # It closed its output, or spoke nonsense, and lives on: nothing it does can be used.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            returncode = 1
        oom_killed = self._count_oom_kills() > self._oom_kills_before
        self._tell(process, Exited(returncode, oom_killed))

    def _tell(self, process: subprocess.Popen[str], message: TrainerMessage | Exited) -> None:
        # A process that we have killed speaks for no job any more.
        if self._process is process:
            self._sink(message)

    @staticmethod
    def _send(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None  # noqa: S101  it was opened with a pipe
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            log.info(
                "the trainer is gone; its end is reported by the reader",
                extra=log_event("trainer_gone"),
            )
        except ValueError:
            log.info(
                "the trainer is killed just now; whoever did it gives the order to end",
                extra=log_event("trainer_being_killed"),
            )


def _messages(lines: IO[str]) -> Iterator[TrainerMessage]:
    """Yield the lines as messages; end at the first that is none."""
    for line in lines:
        try:
            yield trainer_message.validate_json(line)
        except ValidationError as error:
            # Not what it said: that may be a row.
            problems = [problem["type"] for problem in error.errors(include_input=False)]
            log.error(
                "the trainer said something that is no message",
                extra=log_event("trainer_not_understood", problems=problems),
            )
            return


def _ignore(message: TrainerMessage | Exited) -> None:
    if not isinstance(message, ReadyMessage):
        log.info("idle trainer", extra=log_event("idle_trainer_spoke", said=type(message).__name__))
