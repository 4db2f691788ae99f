"""The warm trainer: one base model stays loaded; everything of a job is gone when it ends."""

import gc
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from services.worker.spec import DoneMessage, StartedMessage, TrainSpec
from services.worker.training.checkpoint import (
    Checkpoint,
    Conditions,
    RunIdentity,
    RunState,
    Shelf,
)
from services.worker.training.dataset import DataReader, DataSet
from services.worker.training.decoder import Decoder
from services.worker.training.evaluate import AdaptedModel
from services.worker.training.first_batch import first_batch
from services.worker.training.forgetting import Memory
from services.worker.training.loop import Run, train
from services.worker.training.lora import LoraWeights
from services.worker.training.optimizer import Optimizer
from services.worker.training.paths import load_decoder
from services.worker.training.plan import PLAN_VERSION, Plan
from services.worker.training.prefix import TOKEN_BUDGET, Mode, PrefixCache, Room, choose_mode
from services.worker.training.questions import write_questions
from services.worker.training.report import Emit, Reporter
from services.worker.training.results import Results, export_results, report_figures
from services.worker.training.share import Share
from services.worker.training.signals import Signals
from services.worker.training.team import ALONE, Team
from shared.catalog import BaseModelEntry, Catalog
from shared.chat.encoder import ChatEncoder

_VERSIONED = ("torch", "transformers", "peft", "safetensors")


class BadConfiguration(Exception):
    """The spec asks for something this trainer or the base model's profile does not allow."""


@dataclass(frozen=True)
class WarmBase:
    """A loaded base model and the checksum every later job must find unchanged."""

    name: str
    folder: Path
    base: Decoder
    encoder: ChatEncoder
    checksum: str


class WarmTrainer:
    """Runs one spec after the other on one base model."""

    def __init__(self, catalog: Catalog, signals: Signals, emit: Emit, team: Team = ALONE) -> None:
        """Be one of ``team``, whose specs are the same, and of whom the leader is interrupted."""
        self._team = team
        self._catalog = catalog
        self._signals = signals
        self._emit = emit
        self._device = team.device
        self._warm: WarmBase | None = None

    def run(self, spec: TrainSpec) -> None:
        """Train what ``spec`` says and report ``done``; errors and interruptions are raised."""
        torch.set_num_threads(max(1, spec.threads // self._team.size))
        entry = self._catalog.get(spec.base_model)
        if spec.hyperparameters.rank > entry.profile.max_rank:
            raise BadConfiguration(f"The rank may be at most {entry.profile.max_rank}.")
        warm = self._base(spec, entry)
        try:
            _train(spec, entry, warm, Reporter(self._emit, self._signals.poll), self._team)
        finally:
            # The adapter, the rows and the prefix cache were locals of _train. An exception's
            # traceback holds them until it is caught; after an error the process ends.
            gc.collect()

    def _base(self, spec: TrainSpec, entry: BaseModelEntry) -> WarmBase:
        """Return the base model, loaded at most once and proven unchanged since."""
        if self._warm is None:
            if not entry.weights_intact(spec.base_dir.parent):
                raise BadConfiguration(
                    f"The weights of {entry.name} are missing or are not those it was added with."
                )
            base = load_decoder(spec.base_dir, self._device, entry.profile.first_trained_layer)
            self._warm = WarmBase(
                name=spec.base_model,
                folder=spec.base_dir,
                base=base,
                encoder=ChatEncoder(spec.base_dir),
                checksum=base.checksum(),
            )
        elif (self._warm.name, self._warm.folder) != (spec.base_model, spec.base_dir):
            raise BadConfiguration("This trainer is warm with another base model.")
        elif self._warm.base.checksum() != self._warm.checksum:
            raise RuntimeError("the base model's weights have changed since they were loaded")
        return self._warm


def _train(
    spec: TrainSpec, entry: BaseModelEntry, warm: WarmBase, report: Reporter, team: Team
) -> None:
    """One job, from its rows to its adapter: read, resume, train, export."""
    scratch = spec.scratch_dir or spec.attempt_dir
    reader = DataReader(warm.encoder, entry.context_length, scratch, report)
    data = reader.read(spec)
    numbers = spec.hyperparameters
    plan = Plan(len(data.train), numbers.batch_size, numbers.n_epochs, spec.seed)
    identity = _identity(spec, entry, warm, data)
    shelf = Shelf(spec.attempt_dir, spec.resume_from, identity)
    mode = _mode(warm.base, data, numbers.n_epochs, scratch)
    conditions = _conditions(spec, warm.base, team)
    start, differs = _resume(shelf, identity, conditions, mode)
    _agree(start.state, team)
    first_step = report.step = start.state.step
    report.emit(
        StartedMessage(
            step=first_step,
            total_steps=plan.total_steps,
            steps_per_epoch=plan.steps_per_epoch,
            train_rows=len(data.train),
            validation_rows=len(data.validation),
            test_rows=len(data.test),
            fresh_because=shelf.unfit,
            differs=differs or None,
        )
    )
    report.emit(first_batch(data.train, plan, warm.encoder.decode))
    model = _adapted(spec, entry, warm.base, start)
    shares = [Share(rows, team, scratch) for rows in data.all]
    train_cache, validation_cache, *test_cache = (
        PrefixCache(
            warm.base,
            share.rows,
            model.first_layer,
            partial(report.working, "prefix"),
            scratch,
            mode=_kept_mode(start.state, mode),
            token_budget=max(1, TOKEN_BUDGET // spec.micro_batch_divisor),
        )
        for share in shares
    )
    run = Run(
        team=team,
        model=model,
        share=shares[0],
        train=train_cache,
        validation=validation_cache,
        test=test_cache[0] if test_cache else None,
        memory=Memory(model, warm.encoder, entry.context_length, scratch, report),
        plan=plan,
        optimizer=Optimizer(model.adapter, start.moments, first_step),
        state=start.state,
        best=start.best,
        shelf=shelf,
        checkpoint_seconds=spec.checkpoint_seconds,
        report=report,
    )
    stopped_early = train(run)
    model.adapter.load(run.best)
    if not team.leads:
        report_figures(run)
        return
    questions = write_questions(spec.attempt_dir / "questions.json", data.held_out, spec.seed)
    files = export_results(spec, run, entry.context_length)
    done = _done(run, files, questions, first_step, stopped_early)
    report.emit(done.model_copy(update={"test_row_numbers": data.held_out.test_row_numbers}))


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


def _mode(base: Decoder, data: DataSet, epochs: int, scratch: Path) -> Mode:
    """Where the frozen layers' states would be if the job began here and now."""
    tokens = sum(part.tokens for part in data.all)
    size = tokens * base.width * base.linears.dtype.itemsize
    return choose_mode(size, epochs, Room.here(scratch))


def _kept_mode(state: RunState, mode: Mode) -> Mode:
    """``mode``, or what keeps the run's bits: a run whose states are kept waits for disk space."""
    if state.prefix == "fly":
        return Mode.FLY
    return mode if mode.kept else Mode.FILE


def _conditions(spec: TrainSpec, base: Decoder, team: Team) -> Conditions:
    return Conditions(
        threads=spec.threads,
        micro_batch_divisor=spec.micro_batch_divisor,
        versions={name: version(name) for name in _VERSIONED},
        path=base.path,
        precision=str(base.linears.dtype).removeprefix("torch."),
        processes=team.size,
    )


def _agree(state: RunState, team: Team) -> None:
    """Keep states where the leader does, which saw other free memory, and begin at its step."""
    step, kept = team.leaders(state.step, state.prefix == "kept")
    if step != state.step:
        raise RuntimeError("the processes of the team found other checkpoints")
    state.prefix = "kept" if kept else "fly"


def _resume(
    shelf: Shelf, identity: RunIdentity, conditions: Conditions, mode: Mode
) -> tuple[Checkpoint, str]:
    """Return the run's newest checkpoint, or a fresh start; and what has changed since."""
    found = shelf.newest()
    if found is None:
        prefix: Literal["kept", "fly"] = "kept" if mode.kept else "fly"
        state = RunState(identity=identity, conditions=conditions, prefix=prefix)
        return Checkpoint(state=state, adapter={}, best={}, moments={}), ""
    differs = conditions.differences(found.state.conditions)
    found.state.conditions = conditions
    return found, differs


def _adapted(
    spec: TrainSpec, entry: BaseModelEntry, base: Decoder, start: Checkpoint
) -> AdaptedModel:
    """Put the job's adapter beside the base model: a new one, or that of ``start``."""
    adapter = LoraWeights(
        base.linears,
        entry.peft_modules(),
        rank=spec.hyperparameters.rank,
        alpha=spec.hyperparameters.alpha,
        seed=spec.seed,
    )
    if start.adapter:
        adapter.load(start.adapter)
    return AdaptedModel(base, entry.profile.first_trained_layer, adapter, spec.recompute)


def _done(
    run: Run, files: Results, questions: Path | None, first_step: int, stopped_early: bool
) -> DoneMessage:
    state = run.state
    budget = state.identity.hyperparameters.forgetting_budget
    return DoneMessage(
        step=state.step,
        steps_this_attempt=state.step - first_step,
        total_steps=run.plan.total_steps,
        best_step=state.best_step,
        stopped_early=stopped_early,
        trained_tokens=state.trained_tokens,
        adapter_dir=files.adapter,
        data_sha256=state.identity.data_sha256,
        check_file=files.served_check,
        questions_file=questions,
        checkpoints=files.checkpoints,
        history=tuple(state.history),
        base_loss=state.base_loss,
        base_accuracy=state.base_accuracy,
        final_loss=state.best_loss,
        final_accuracy=state.best_accuracy,
        reported=files.reported,
        forgetting=files.forgetting,
        over_budget=budget is not None and state.best_increase > budget,
    )
