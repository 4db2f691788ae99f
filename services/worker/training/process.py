"""Runs the trainer's protocol: reads commands, runs specs one after the other, reports."""

import argparse
import json
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn, TextIO

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from services.worker.disk import DISK_FULL, DISK_FULL_ERRNOS, is_disk_full
from services.worker.spec import (
    ErrorMessage,
    ReadyMessage,
    StoppedMessage,
    TrainerMessage,
    TrainSpec,
)
from services.worker.training import checkpoint
from services.worker.training.data import BadData
from services.worker.training.loop import NonFiniteLoss
from services.worker.training.paths import NotProven
from services.worker.training.peers import Peers
from services.worker.training.signals import Interrupted, Signals
from services.worker.training.team import (
    ALONE,
    Team,
    TeamLost,
    TooFewDevices,
    find_meeting,
    join,
    open_meeting,
)
from services.worker.training.warm_trainer import BadConfiguration, WarmTrainer
from shared.catalog import load_catalog
from shared.errors import NotFound
from shared.telemetry import configure_logging, log_context, log_event

logger = logging.getLogger(__name__)


LOST_SECONDS = 10.0
"""So long does a process wait to be ended, with the right words, after another one of its team."""


def main() -> None:
    """Serve specs from stdin until it ends."""
    arguments = _arguments()
    voice = _Voice(_claim_stdout(), leads=arguments.rank == 0)
    configure_logging("trainer")
    disable_progress_bar()
    signals = Signals()
    specs: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(specs, signals), daemon=True).start()
    team, peers = _assemble(arguments, voice)
    trainer = WarmTrainer(load_catalog(arguments.models_dir), signals, voice.say, team)
    voice.say(ReadyMessage())
    while True:
        line = specs.get()
        if peers:
            peers.tell(line)
        match _serve(trainer, line):
            case ErrorMessage() as failure:
                voice.fail(failure)
            case StoppedMessage() as stopped:
                voice.say(stopped.model_copy(update={"ends": peers is not None}))
                if peers:
                    os._exit(0)  # they are in the middle of the job, and end with this process


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.worker.training")
    parser.add_argument("--parent", type=int, help="process id of the supervisor; checked at start")
    parser.add_argument("--models-dir", type=Path, help="where base models were added")
    parser.add_argument("--processes", type=int, default=1, help="that train one job together")
    parser.add_argument("--rank", type=int, default=0, help="0 starts the others")
    parser.add_argument("--port", type=int, help="where they meet rank 0")
    return parser.parse_args()


def _claim_stdout() -> TextIO:
    """Return the protocol's stream; whatever libraries print from now on goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


class _Voice:
    """Writes the protocol's lines, one at a time; of who does not lead, only what made it fail."""

    def __init__(self, out: TextIO, *, leads: bool) -> None:
        self._out, self._leads = out, leads
        self._lock = threading.Lock()

    def say(self, message: TrainerMessage) -> None:
        """Pass ``message`` on to the supervisor."""
        if self._leads:
            with self._lock:
                self._write(message)

    def fail(self, failure: ErrorMessage) -> NoReturn:
        """Say why and end the process; of several threads that fail, the first is heard."""
        with self._lock:
            self._write(failure)
            # No clean-up that could hang after an out-of-memory error; the supervisor starts anew.
            os._exit(1)

    def _write(self, message: TrainerMessage) -> None:
        self._out.write(message.model_dump_json() + "\n")
        self._out.flush()


def _assemble(arguments: argparse.Namespace, voice: _Voice) -> tuple[Team, Peers | None]:
    """Be alone, or bring a team together; the leader has the others."""
    size, rank = arguments.processes, arguments.rank
    if size == 1:
        return ALONE, None
    peers = None
    try:
        if rank:
            meeting = find_meeting(arguments.port, size)
        else:
            meeting = open_meeting(size)
            handed_on = ["--processes", str(size)]
            if arguments.models_dir:
                handed_on += ["--models-dir", str(arguments.models_dir)]
            peers = Peers(handed_on, meeting.port, size, voice.fail)
        return join(meeting, rank, size), peers
    except (TooFewDevices, TeamLost) as error:
        voice.fail(failure_message(error))


def _listen(specs: "SimpleQueue[str]", signals: Signals) -> None:
    """Sort stdin's lines into specs and flags; its end ends the process at once."""
    for line in sys.stdin:
        command = json.loads(line).get("command")
        if command == "stop":
            signals.stop.set()
        elif command == "abort":
            signals.abort.set()
        else:
            signals.clear()  # in the order of stdin: what came before was meant for the job before
            specs.put(line)
    os._exit(0)


def _serve(trainer: WarmTrainer, line: str) -> StoppedMessage | ErrorMessage | None:
    """Run one spec; return what ended it before its time."""
    try:
        spec = TrainSpec.model_validate_json(line)
    except ValidationError:
        return ErrorMessage(code="bad_configuration", message="The job's description is malformed.")
    with log_context(job_id=spec.job_id):
        try:
            trainer.run(spec)
        except Interrupted:
            step = checkpoint.highest_step((spec.attempt_dir, *spec.resume_from))
            return StoppedMessage(step=step)
        except Exception as error:  # noqa: BLE001  the supervisor is told of every one
            if isinstance(error, TeamLost):
                time.sleep(LOST_SECONDS)  # who watches the lost one knows more, and is quicker
            failure = failure_message(error)
            # Not its text and not its cause: they may quote a row.
            frames = "".join(traceback.format_tb(error.__traceback__))
            data = {"code": failure.code, "error": type(error).__name__, "frames": frames}
            logger.error("the job failed", extra=log_event("training_failed", **data))
            return failure
    return None


def failure_message(error: Exception) -> ErrorMessage:
    """Give every way to fail its code; only our own errors' words are shown to the user."""
    match error:
        case BadData():
            return ErrorMessage(code="bad_data", message=str(error), param=error.param)
        case BadConfiguration() | NotProven() | NotFound() | TooFewDevices():
            return ErrorMessage(code="bad_configuration", message=str(error))
        case NonFiniteLoss():
            return ErrorMessage(code="non_finite_loss", message=str(error))
        case _ if _is_disk_full(error):
            return ErrorMessage(code="disk_full", message=DISK_FULL)
        case _ if _is_out_of_memory(error):
            return ErrorMessage(code="out_of_memory", message="Training ran out of memory.")
    words = f"The trainer failed ({type(error).__name__})."
    return ErrorMessage(code="crash", message=str(error) if isinstance(error, TeamLost) else words)


def _is_disk_full(error: Exception) -> bool:
    """Safetensors has no class for it; its text ends with the system's number."""
    return is_disk_full(error) or (
        isinstance(error, SafetensorError)
        and any(f"(os error {number})" in str(error) for number in DISK_FULL_ERRNOS)
    )


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA has a class for it; the CPU allocator only has its text."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
