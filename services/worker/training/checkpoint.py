"""Checkpoints: adapter weights, AdamW's moments and the run's state, committed by a manifest.

One folder ``step-%09d`` each, self-contained (the best adapter so far lies beside the newest), so
that a resume needs one verified folder and nothing else. Safetensors and JSON only, never pickle.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.worker.spec import StepMetrics
from shared.jobs.hyperparameters import Hyperparameters
from shared.storage import CorruptArtifact, publish_folder, verify_manifest

KEPT = 2
"""Newest checkpoints that stay, besides the best."""
_NAME = re.compile(r"step-(\d{9})")


class RunIdentity(BaseModel):
    """What must be equal for one attempt to go on where another ended."""

    base_sha256: str
    data_sha256: str
    seed: int
    hyperparameters: Hyperparameters


class RunState(BaseModel):
    """Everything about a run but its tensors; ``state.json``."""

    identity: RunIdentity
    threads: int
    versions: dict[str, str]
    step: int = 0
    trained_tokens: int = 0
    base_loss: float = 0.0
    base_accuracy: float = 0.0
    evaluated_step: int = -1
    """Last step after which the validation rows were evaluated."""
    best_step: int = 0
    best_loss: float = 0.0
    best_accuracy: float = 0.0
    lowest_loss: float = 0.0
    """Of any evaluation; early stopping asks whether loss or accuracy still improves."""
    evaluations_without_gain: int = 0
    history: list[StepMetrics] = []

    @property
    def epoch(self) -> int:
        """Epoch of the last step done; 0 before the first."""
        return self.history[-1].epoch if self.history else 0


class Checkpoint(BaseModel):
    """One run's tensors and state, as saved and as loaded."""

    model_config = {"arbitrary_types_allowed": True}

    state: RunState
    adapter: dict[str, Tensor]
    best: dict[str, Tensor]
    moments: dict[str, Tensor]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``folder/step-…`` durably, remove the superseded ones, and return its path."""
    state = checkpoint.state
    target = folder / f"step-{state.step:09d}"
    if target.exists():
        return target
    with publish_folder(target, {"step": state.step, "epoch": state.epoch}) as temporary:
        save_file(checkpoint.adapter, temporary / "adapter.safetensors")
        save_file(checkpoint.best, temporary / "best.safetensors")
        save_file(checkpoint.moments, temporary / "optimizer.safetensors")
        (temporary / "state.json").write_text(state.model_dump_json())
    _prune(folder, state.best_step)
    return target


def newest(folders: Iterable[Path], identity: RunIdentity) -> Checkpoint | None:
    """Load the highest checkpoint that verifies and belongs to this run; None: start afresh."""
    return next(of_run(folders, identity), None)


def of_run(folders: Iterable[Path], identity: RunIdentity) -> Iterator[Checkpoint]:
    """Load the checkpoints that verify and belong to this run, highest step first, each step once.

    ``folders`` are one run's attempts: a step that several have saved is the same in all.
    """
    found = [(step, path) for folder in folders for step, path in listed(folder)]
    last = None
    for step, path in sorted(found, reverse=True):
        checkpoint = _load(path) if step != last else None
        if checkpoint is not None and checkpoint.state.identity == identity:
            last = step
            yield checkpoint


def listed(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the checkpoints in ``folder`` with their steps, in no order; unverified."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match:
            yield int(match[1]), path


def highest_step(folders: Iterable[Path]) -> int:
    """Step of the newest checkpoint, 0 without one."""
    return max((step for folder in folders for step, _ in listed(folder)), default=0)


def _load(path: Path) -> Checkpoint | None:
    """Return the checkpoint, or None where it is damaged or of another version's shape."""
    try:
        verify_manifest(path)
        return Checkpoint(
            state=RunState.model_validate_json((path / "state.json").read_bytes()),
            adapter=load_file(path / "adapter.safetensors"),
            best=load_file(path / "best.safetensors"),
            moments=load_file(path / "optimizer.safetensors"),
        )
    except (CorruptArtifact, ValidationError, OSError):
        return None


def _prune(folder: Path, best_step: int) -> None:
    steps = sorted(listed(folder))
    for step, path in steps[:-KEPT]:
        if step != best_step:
            shutil.rmtree(path)
