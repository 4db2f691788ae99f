"""What an attempt is asked and leaves, for tests of whole jobs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.worker.spec import TrainerMessage, TrainSpec
from services.worker.training.signals import Interrupted
from tests.services.worker.training.conftest import Trainer, silent

MakeSpec = Callable[..., TrainSpec]


def bytes_of(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def interrupt(trainer: Trainer, spec: TrainSpec, step: int) -> None:
    """Let ``spec`` run until ``step`` is done and its checkpoint is saved."""
    stop_after(trainer, step)
    with pytest.raises(Interrupted):
        trainer.train(spec)
    trainer.on_message = silent


def stop_after(trainer: Trainer, step: int, flag: str = "stop") -> None:
    """Ask the trainer to end once ``step`` has been reported."""

    def listen(message: TrainerMessage) -> None:
        if message.kind == "progress" and message.metrics.step == step:
            getattr(trainer.signals, flag).set()

    trainer.on_message = listen
