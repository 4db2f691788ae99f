"""The warm trainer: one base model stays loaded; everything of a job is gone when it ends."""

import gc
import shutil
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict

from services.worker.spec import (
    KEPT_EPOCH_ENDS,
    CheckpointAdapter,
    DoneMessage,
    StartedMessage,
    TrainSpec,
)
from services.worker.training.checkpoint import (
    Checkpoint,
    Conditions,
    RunIdentity,
    RunState,
    Shelf,
)
from services.worker.training.dataset import DataReader, DataSet
from services.worker.training.evaluate import AdaptedModel, write_served_check
from services.worker.training.loop import Run, train
from services.worker.training.lora import LoraWeights, export
from services.worker.training.model import FrozenModel
from services.worker.training.plan import PLAN_VERSION, Plan
from services.worker.training.prefix import GROUP_TOKENS, Mode, PrefixCache, Room, choose_mode
from services.worker.training.report import Emit, Reporter
from services.worker.training.signals import Signals
from shared.catalog import BaseModelEntry, Catalog
from shared.chat.encoder import ChatEncoder

TOKEN_BUDGET = 2048
"""Padded tokens of a micro-batch, before ``micro_batch_divisor``; the flags are polled between."""
_VERSIONED = ("torch", "transformers", "peft", "safetensors")


class BadConfiguration(Exception):
    """The spec asks for something this trainer or the base model's profile does not allow."""


class WarmBase(BaseModel):
    """A loaded base model and the checksum every later job must find unchanged."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    folder: Path
    frozen: FrozenModel
    encoder: ChatEncoder
    checksum: str


class Engine:
    """Runs one spec after the other on one base model."""

    def __init__(self, catalog: Catalog, signals: Signals, emit: Emit) -> None:
        self._catalog = catalog
        self._signals = signals
        self._emit = emit
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._warm: WarmBase | None = None

    def run(self, spec: TrainSpec) -> None:
        """Train what ``spec`` says and report ``done``; errors and interruptions are raised."""
        torch.set_num_threads(spec.threads)
        entry = self._catalog.get(spec.base_model)
        if spec.hyperparameters.rank > entry.profile.max_rank:
            raise BadConfiguration(f"The rank may be at most {entry.profile.max_rank}.")
        warm = self._base(spec)
        try:
            self._train(spec, entry, warm)
        finally:
            # The adapter, the rows and the prefix cache were locals of _train. An exception's
            # traceback holds them until it is caught; after an error the process ends.
            gc.collect()

    def _base(self, spec: TrainSpec) -> WarmBase:
        """Return the base model, loaded at most once and proven unchanged since."""
        if self._warm is None:
            frozen = FrozenModel(spec.base_dir, self._device)
            self._warm = WarmBase(
                name=spec.base_model,
                folder=spec.base_dir,
                frozen=frozen,
                encoder=ChatEncoder(spec.base_dir),
                checksum=frozen.checksum(),
            )
        elif (self._warm.name, self._warm.folder) != (spec.base_model, spec.base_dir):
            raise BadConfiguration("This trainer is warm with another base model.")
        elif self._warm.frozen.checksum() != self._warm.checksum:
            raise RuntimeError("the base model's weights have changed since they were loaded")
        return self._warm

    def _train(self, spec: TrainSpec, entry: BaseModelEntry, warm: WarmBase) -> None:
        report = Reporter(self._emit, self._signals.poll)
        scratch = spec.scratch_dir or spec.attempt_dir
        reader = DataReader(warm.encoder, entry.context_length, scratch, report)
        data = reader.read(spec.train_rows, spec.validation_rows)
        base, numbers = warm.frozen, spec.hyperparameters
        adapter = LoraWeights(
            base.shapes,
            entry.profile,
            rank=numbers.rank,
            alpha=numbers.alpha,
            seed=spec.seed,
            device=base.device,
            dtype=base.dtype,
        )
        plan = Plan(len(data.train), numbers.batch_size, numbers.n_epochs, spec.seed)
        identity = _identity(spec, entry, warm, data)
        shelf = Shelf(spec.attempt_dir, spec.resume_from, identity)
        mode = _mode(base, data, numbers.n_epochs, scratch)
        found, differs = _resume(spec, shelf, identity, mode)
        if found.adapter:
            adapter.load(found.adapter)
        first_step = report.step = found.state.step
        report.emit(
            StartedMessage(
                step=first_step,
                total_steps=plan.total_steps,
                steps_per_epoch=plan.steps_per_epoch,
                train_rows=len(data.train),
                validation_rows=len(data.validation),
                fresh_because=shelf.unfit,
                differs=differs or None,
            )
        )
        train_cache, validation_cache = (
            PrefixCache(
                base,
                rows,
                entry.profile.first_trained_layer,
                partial(report.working, "prefix"),
                scratch,
                mode=_kept_mode(found.state, mode),
                group_tokens=max(1, GROUP_TOKENS // spec.micro_batch_divisor),
            )
            for rows in (data.train, data.validation)
        )
        run = Run(
            model=AdaptedModel(base, entry.profile.first_trained_layer, adapter),
            adapter=adapter,
            train=train_cache,
            validation=validation_cache,
            plan=plan,
            state=found.state,
            best=found.best,
            moments=found.moments,
            shelf=shelf,
            checkpoint_seconds=spec.checkpoint_seconds,
            token_budget=max(1, TOKEN_BUDGET // spec.micro_batch_divisor),
            report=report,
        )
        stopped_early = train(run)
        try:
            done = _publish(spec, run, first_step, stopped_early, entry.context_length)
        except Exception:
            # Half an adapter helps nobody, least of all a disk that is full.
            for folder in spec.attempt_dir.glob("adapter*"):
                shutil.rmtree(folder)
            raise
        report.emit(done)


def _identity(spec: TrainSpec, entry: BaseModelEntry, warm: WarmBase, data: DataSet) -> RunIdentity:
    return RunIdentity(
        base_sha256=spec.base_sha256,
        profile_sha256=entry.profile.sha256(),
        data_sha256=data.sha256,
        encoder_sha256=warm.encoder.sha256,
        tokens_sha256=data.tokens_sha256,
        plan_version=PLAN_VERSION,
        seed=spec.seed,
        hyperparameters=spec.hyperparameters,
    )


def _mode(base: FrozenModel, data: DataSet, epochs: int, scratch: Path) -> Mode:
    """Where the frozen layers' states would be if the job began here and now."""
    tokens = data.train.tokens + data.validation.tokens
    size = tokens * base.embedding.shape[1] * base.dtype.itemsize
    return choose_mode(size, epochs, Room.here(scratch))


def _kept_mode(state: RunState, mode: Mode) -> Mode:
    """``mode``, or what keeps the run's bits: a run whose states are kept waits for disk space."""
    if state.prefix == "fly":
        return Mode.FLY
    return mode if mode.kept else Mode.FILE


def _resume(
    spec: TrainSpec, shelf: Shelf, identity: RunIdentity, mode: Mode
) -> tuple[Checkpoint, str]:
    """Return the run's newest checkpoint, or a fresh start; and what has changed since."""
    conditions = Conditions(
        threads=spec.threads,
        micro_batch_divisor=spec.micro_batch_divisor,
        versions={name: version(name) for name in _VERSIONED},
    )
    found = shelf.newest()
    if found is None:
        prefix: Literal["kept", "fly"] = "kept" if mode.kept else "fly"
        state = RunState(identity=identity, conditions=conditions, prefix=prefix)
        return Checkpoint(state=state, adapter={}, best={}, moments={}), ""
    differs = conditions.differences(found.state.conditions)
    found.state.conditions = conditions
    return found, differs


def _publish(
    spec: TrainSpec, run: Run, first_step: int, stopped_early: bool, context_length: int
) -> DoneMessage:
    """Export the best adapter and the callable checkpoints into the attempt's folder."""
    state = run.state
    config = run.adapter.config(spec.base_model)
    run.adapter.load(run.best)
    export(spec.attempt_dir / "adapter", run.best, config)
    check_file = spec.attempt_dir / "served_check.json"
    write_served_check(check_file, run.model, run.validation, context_length)
    return DoneMessage(
        step=state.step,
        steps_this_attempt=state.step - first_step,
        total_steps=run.plan.total_steps,
        best_step=state.best_step,
        stopped_early=stopped_early,
        trained_tokens=state.trained_tokens,
        adapter_dir=spec.attempt_dir / "adapter",
        data_sha256=state.identity.data_sha256,
        check_file=check_file,
        checkpoints=tuple(_callable_checkpoints(spec, run, config)),
        history=tuple(state.history),
        base_loss=state.base_loss,
        base_accuracy=state.base_accuracy,
        final_loss=state.best_loss,
        final_accuracy=state.best_accuracy,
    )


def _callable_checkpoints(
    spec: TrainSpec, run: Run, config: dict[str, object]
) -> list[CheckpointAdapter]:
    """Export the kept end-of-epoch checkpoints of all attempts, newest last."""
    exported = []
    for found in islice(run.shelf.epoch_ends(run.plan.steps_per_epoch), KEPT_EPOCH_ENDS):
        step = found.state.step
        target = spec.attempt_dir / f"adapter-step-{step:09d}"
        export(target, found.adapter, config)
        exported.append(
            CheckpointAdapter(step=step, path=target, metrics=run.state.history[step - 1])
        )
    return exported[::-1]
