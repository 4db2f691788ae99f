"""Checkpoints: adapter weights, AdamW's moments and the run's state, committed by a manifest.

One folder ``step-%09d`` each, self-contained (the best adapter so far lies beside the newest), so
that a resume needs one verified folder and nothing else. Safetensors and JSON only, never pickle.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.worker.spec import KEPT_EPOCH_ENDS, StepMetrics
from shared.jobs.hyperparameters import Hyperparameters
from shared.storage import CorruptArtifact, publish_folder, verify_manifest

KEPT = 2
"""Newest checkpoints that stay, besides the best and the epoch ends."""
_NAME = re.compile(r"step-(\d{9})")


class RunIdentity(BaseModel):
    """What must be equal for one attempt to go on where another ended."""

    base_sha256: str
    profile_sha256: str
    data_sha256: str
    encoder_sha256: str
    tokens_sha256: str
    """Of the token ids and answer marks, in training, validation and test."""
    plan_version: int
    seed: int
    hyperparameters: Hyperparameters

    def differences(self, other: "RunIdentity") -> str:
        """Say in the user's words what is not equal."""
        found = [word for key, word in _WORDS.items() if getattr(self, key) != getattr(other, key)]
        # Other rows or another template change the token ids, too: the cause is enough.
        return " and ".join(found[:-1] if len(found) > 1 and found[-1] == _TOKENS else found)


_TOKENS = "other token ids or another split"
_WORDS = {
    "base_sha256": "another base model",
    "profile_sha256": "another adapter profile",
    "data_sha256": "other rows",
    "encoder_sha256": "another tokenizer or chat template",
    "plan_version": "another version of the training plan",
    "seed": "another seed",
    "hyperparameters": "other hyperparameters",
    "tokens_sha256": _TOKENS,
}


class Conditions(BaseModel):
    """What may change between attempts at the price of the last bits: the gradient is the same."""

    threads: int
    micro_batch_divisor: int
    versions: dict[str, str]
    path: str = "fused"
    """Of the decoder."""
    precision: str = "bfloat16"
    """What it computes in."""
    processes: int = 1
    """Each sums up its own rows."""

    def differences(self, before: "Conditions") -> str:
        """Say what is not as it was ``before``; empty when nothing is."""
        now, then = (
            {
                "threads": one.threads,
                "micro-batch divisor": one.micro_batch_divisor,
                "training path": one.path,
                "precision": one.precision,
                "training processes": one.processes,
            }
            | one.versions
            for one in (self, before)
        )
        names = [name for name in now if now[name] != then.get(name)]
        return ", ".join(f"{name} {now[name]} instead of {then.get(name)}" for name in names)


class RunState(BaseModel):
    """Everything about a run but its tensors; ``state.json``."""

    identity: RunIdentity
    conditions: Conditions
    """Of the attempt that saved it."""
    prefix: Literal["kept", "fly"]
    """Where the frozen layers' states come from, chosen by the first attempt; see prefix.py."""
    step: int = 0
    trained_tokens: int = 0
    base_loss: float = 0.0
    base_accuracy: float = 0.0
    evaluated_step: int = -1
    """Last step after which the validation rows were evaluated."""
    best_step: int = 0
    best_loss: float = 0.0
    best_accuracy: float = 0.0
    best_increase: float = 0.0
    """Of the loss on rows that are no company's; 0 where no budget limits it."""
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


class Shelf:
    """The sound checkpoints of one run, wherever its attempts have left them."""

    def __init__(self, folder: Path, earlier: Sequence[Path], identity: RunIdentity) -> None:
        """``folder`` is this attempt's, ``earlier`` those of the attempts before, newest first.

        Every checkpoint is verified. A step that several attempts saved is the same in all.
        """
        self._folder = folder
        self._earlier = earlier
        self._paths: dict[int, Path] = {}
        self.unfit: str | None = None
        """Why the newest checkpoint is not this run's, where none is."""
        for step, path in self._listed():
            if step in self._paths:
                continue
            state = _state(path)
            if state is not None and state.identity == identity:
                self._paths[step] = path
            else:
                self.unfit = self.unfit or _reason(step, state, identity)
        if self._paths:
            self.unfit = None

    def newest(self) -> Checkpoint | None:
        """Load the highest checkpoint; None: start afresh."""
        return next(self._load(self._paths), None)

    def epoch_ends(self, steps_per_epoch: int) -> Iterator[Checkpoint]:
        """Load the checkpoints that ended an epoch, highest step first."""
        return self._load(step for step in self._paths if step % steps_per_epoch == 0)

    def save(self, checkpoint: Checkpoint, steps_per_epoch: int) -> Path:
        """Write ``step-…`` durably, remove what it supersedes in all attempts; return its path.

        An error (a full disk) leaves nothing of it behind, and all earlier ones.
        """
        state = checkpoint.state
        if state.step in self._paths:
            return self._paths[state.step]
        target = self._folder / f"step-{state.step:09d}"
        if target.exists():  # and is damaged, or another run's
            shutil.rmtree(target)
        with publish_folder(target, {"step": state.step, "epoch": state.epoch}) as temporary:
            save_file(checkpoint.adapter, temporary / "adapter.safetensors")
            save_file(checkpoint.best, temporary / "best.safetensors")
            save_file(checkpoint.moments, temporary / "optimizer.safetensors")
            (temporary / "state.json").write_text(state.model_dump_json())
        self._paths[state.step] = target
        self._prune(state.best_step, steps_per_epoch)
        return target

    def _prune(self, best_step: int, steps_per_epoch: int) -> None:
        steps = sorted(self._paths)
        ends = [step for step in steps if step % steps_per_epoch == 0]
        wanted = {*steps[-KEPT:], *ends[-KEPT_EPOCH_ENDS:], best_step}
        self._paths = {step: path for step, path in self._paths.items() if step in wanted}
        superseded = [path for _, path in self._listed() if path not in self._paths.values()]
        # What a killed attempt was writing; this attempt's own saves clean up after themselves.
        unfinished = [path for folder in self._earlier for path in folder.glob(".tmp-step-*")]
        for path in (*superseded, *unfinished):
            with suppress(FileNotFoundError):  # a stalled attempt may be pruning, too
                shutil.rmtree(path)

    def _listed(self) -> list[tuple[int, Path]]:
        """Highest step first; of equal ones this attempt's, then the newest attempt's."""
        found = [pair for folder in (self._folder, *self._earlier) for pair in listed(folder)]
        return sorted(found, key=lambda pair: -pair[0])

    def _load(self, steps: Iterable[int]) -> Iterator[Checkpoint]:
        for step in sorted(steps, reverse=True):
            path = self._paths[step]
            state = _state(path)
            if state is not None:
                yield Checkpoint(
                    state=state,
                    adapter=load_file(path / "adapter.safetensors"),
                    best=load_file(path / "best.safetensors"),
                    moments=load_file(path / "optimizer.safetensors"),
                )


def listed(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the checkpoints in ``folder`` with their steps, in no order; unverified."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match:
            yield int(match[1]), path


def highest_step(folders: Iterable[Path]) -> int:
    """Step of the newest checkpoint, 0 without one."""
    return max((step for folder in folders for step, _ in listed(folder)), default=0)


def _state(path: Path) -> RunState | None:
    """Return a checkpoint's state, or None where it is damaged or of another version's shape."""
    try:
        verify_manifest(path)
        return RunState.model_validate_json((path / "state.json").read_bytes())
    except (CorruptArtifact, ValidationError, OSError):
        return None


def _reason(step: int, state: RunState | None, identity: RunIdentity) -> str:
    if state is None:
        return f"The checkpoint of step {step} is damaged or of another version of Tailor"
    return f"The checkpoint of step {step} was made with {state.identity.differences(identity)}"
