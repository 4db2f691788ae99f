"""Runs the trainer's protocol: reads commands, runs specs one after the other, reports."""

import argparse
import json
import logging
import os
import sys
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO

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
from services.worker.training.report import Emit
from services.worker.training.signals import Interrupted, Signals
from services.worker.training.warm_trainer import BadConfiguration, WarmTrainer
from shared.catalog import load_catalog
from shared.errors import NotFound
from shared.telemetry import configure_logging, log_context, log_event

logger = logging.getLogger(__name__)


def main() -> None:
    """Serve specs from stdin until it ends."""
    arguments = _arguments()
    out = _claim_stdout()
    configure_logging("trainer")
    disable_progress_bar()

    def emit(message: TrainerMessage) -> None:
        out.write(message.model_dump_json() + "\n")
        out.flush()

    signals = Signals()
    specs: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(specs, signals), daemon=True).start()
    trainer = WarmTrainer(load_catalog(arguments.models_dir), signals, emit)
    emit(ReadyMessage())
    while True:
        line = specs.get()
        failure = _serve(trainer, line, emit)
        if failure is not None:
            emit(failure)
            out.flush()
            # No clean-up that could hang after an out-of-memory error; the supervisor starts anew.
            os._exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.worker.training")
    parser.add_argument("--parent", type=int, help="process id of the supervisor; checked at start")
    parser.add_argument("--models-dir", type=Path, help="where base models were added")
    return parser.parse_args()


def _claim_stdout() -> TextIO:
    """Return the protocol's stream; whatever libraries print from now on goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


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


def _serve(trainer: WarmTrainer, line: str, emit: Emit) -> ErrorMessage | None:
    """Run one spec; return what made it fail."""
    try:
        spec = TrainSpec.model_validate_json(line)
    except ValidationError:
        return ErrorMessage(code="bad_configuration", message="The job's description is malformed.")
    with log_context(job_id=spec.job_id):
        try:
            trainer.run(spec)
        except Interrupted:
            emit(
                StoppedMessage(step=checkpoint.highest_step((spec.attempt_dir, *spec.resume_from)))
            )
        except Exception as error:  # noqa: BLE001  the supervisor is told of every one
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
        case BadConfiguration() | NotProven() | NotFound():
            return ErrorMessage(code="bad_configuration", message=str(error))
        case NonFiniteLoss():
            return ErrorMessage(code="non_finite_loss", message=str(error))
        case _ if _is_disk_full(error):
            return ErrorMessage(code="disk_full", message=DISK_FULL)
        case _ if _is_out_of_memory(error):
            return ErrorMessage(code="out_of_memory", message="Training ran out of memory.")
    return ErrorMessage(code="crash", message=f"The trainer failed ({type(error).__name__}).")


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
