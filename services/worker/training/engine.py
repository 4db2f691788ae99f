"""The warm trainer: one base model stays loaded; everything of a job is gone when it ends."""

import gc
import hashlib
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from services.worker.spec import (
    CheckpointAdapter,
    DoneMessage,
    StartedMessage,
    TrainSpec,
)
from services.worker.training import checkpoint
from services.worker.training.checkpoint import Checkpoint, RunIdentity, RunState
from services.worker.training.data import Row, carve_validation, read_rows, tokenise
from services.worker.training.evaluate import Trained, write_served_check
from services.worker.training.loop import Emit, Run, train
from services.worker.training.lora import Adapter, export
from services.worker.training.model import FrozenModel
from services.worker.training.plan import Plan
from services.worker.training.prefix import GROUP_TOKENS, PrefixCache
from services.worker.training.signals import Signals
from shared.catalog import BaseModelEntry, Catalog

TOKEN_BUDGET = 2048
"""Padded tokens of a micro-batch, before ``micro_batch_divisor``; the flags are polled between."""
CHECKPOINT_ADAPTERS = 3
"""Callable checkpoints offered at most."""
_VERSIONED = ("torch", "transformers", "peft", "safetensors")


class BadConfiguration(Exception):
    """The spec asks for something this trainer or the base model's profile does not allow."""


class WarmBase(BaseModel):
    """A loaded base model and the checksum every later job must find unchanged."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    folder: Path
    frozen: FrozenModel
    tokenizer: PreTrainedTokenizerBase
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
            # The adapter, the rows and the prefix cache were locals of _train: nothing is left.
            gc.collect()

    def _base(self, spec: TrainSpec) -> WarmBase:
        """Return the base model, loaded at most once and proven unchanged since."""
        if self._warm is None:
            frozen = FrozenModel(spec.base_dir, self._device)
            self._warm = WarmBase(
                name=spec.base_model,
                folder=spec.base_dir,
                frozen=frozen,
                tokenizer=AutoTokenizer.from_pretrained(spec.base_dir, local_files_only=True),
                checksum=frozen.checksum(),
            )
        elif (self._warm.name, self._warm.folder) != (spec.base_model, spec.base_dir):
            raise BadConfiguration("This trainer is warm with another base model.")
        elif self._warm.frozen.checksum() != self._warm.checksum:
            raise RuntimeError("the base model's weights have changed since they were loaded")
        return self._warm

    def _train(self, spec: TrainSpec, entry: BaseModelEntry, warm: WarmBase) -> None:
        rows, held_out = _read(spec, entry, warm.tokenizer)
        base = warm.frozen
        hyperparameters = spec.hyperparameters
        adapter = Adapter(
            base.shapes,
            entry.profile,
            rank=hyperparameters.rank,
            alpha=hyperparameters.alpha,
            seed=spec.seed,
            device=base.device,
            dtype=base.dtype,
        )
        plan = Plan(len(rows), hyperparameters.batch_size, hyperparameters.n_epochs, spec.seed)
        found = _resume(spec, adapter)
        first_step = found.state.step
        self._emit(
            StartedMessage(
                step=first_step,
                total_steps=plan.total_steps,
                steps_per_epoch=plan.steps_per_epoch,
                train_rows=len(rows),
                validation_rows=len(held_out),
            )
        )
        caches = [
            PrefixCache(
                base,
                chosen,
                entry.profile.first_trained_layer,
                self._signals.poll,
                spec.attempt_dir / ".prefix",
                group_tokens=max(1, GROUP_TOKENS // spec.micro_batch_divisor),
            )
            for chosen in (rows, held_out)
        ]
        run = Run(
            trained=Trained(base, entry.profile.first_trained_layer, adapter),
            adapter=adapter,
            train=caches[0],
            validation=caches[1],
            plan=plan,
            state=found.state,
            best=found.best,
            moments=found.moments,
            folder=spec.attempt_dir,
            checkpoint_seconds=spec.checkpoint_seconds,
            token_budget=max(1, TOKEN_BUDGET // spec.micro_batch_divisor),
            poll=self._signals.poll,
            emit=self._emit,
        )
        stopped_early = train(run)
        self._emit(_publish(spec, run, first_step, stopped_early))


def _read(
    spec: TrainSpec, entry: BaseModelEntry, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Row], list[Row]]:
    """Training and validation rows as token ids."""
    train_rows = read_rows(spec.train_rows, "training_file")
    if spec.validation_rows is None:
        train_rows, held_out = carve_validation(train_rows)
        held_out_param = "training_file"
    else:
        held_out = read_rows(spec.validation_rows, "validation_file")
        held_out_param = "validation_file"
    limit = entry.context_length
    return (
        tokenise(train_rows, tokenizer, limit, "training_file"),
        tokenise(held_out, tokenizer, limit, held_out_param),
    )


def _resume(spec: TrainSpec, adapter: Adapter) -> Checkpoint:
    """Return the newest sound checkpoint of this run, loaded into ``adapter``, or a fresh start."""
    identity = RunIdentity(
        base_sha256=spec.base_sha256,
        data_sha256=_data_sha256(spec),
        seed=spec.seed,
        hyperparameters=spec.hyperparameters,
    )
    found = checkpoint.newest((spec.attempt_dir, *spec.resume_from), identity)
    if found is not None:
        adapter.load(found.adapter)
        return found
    state = RunState(
        identity=identity,
        threads=spec.threads,
        versions={name: version(name) for name in _VERSIONED},
    )
    return Checkpoint(state=state, adapter={}, best={}, moments={})


def _data_sha256(spec: TrainSpec) -> str:
    """Hash of the rows this job reads."""
    digest = hashlib.sha256()
    for path in filter(None, (spec.train_rows, spec.validation_rows)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _publish(spec: TrainSpec, run: Run, first_step: int, stopped_early: bool) -> DoneMessage:
    """Export the best adapter and the callable checkpoints into the attempt's folder."""
    state = run.state
    config = run.adapter.config(spec.base_model)
    run.adapter.load(run.best)
    export(spec.attempt_dir / "adapter", run.best, config)
    check_file = spec.attempt_dir / "served_check.json"
    write_served_check(check_file, run.trained, run.validation)
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
    kept = checkpoint.of_run((spec.attempt_dir, *spec.resume_from), run.state.identity)
    ends = (found for found in kept if run.plan.ends_epoch(found.state.step))
    exported = []
    for found in islice(ends, CHECKPOINT_ADAPTERS):
        step = found.state.step
        target = spec.attempt_dir / f"adapter-step-{step:09d}"
        export(target, found.adapter, config)
        exported.append(
            CheckpointAdapter(step=step, path=target, metrics=run.state.history[step - 1])
        )
    return exported[::-1]
