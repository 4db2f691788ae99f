"""The training loop, in the order of the algorithm.

Everything random is a function of (seed, epoch, step) and everything else is in the checkpoint, so
a run that goes on from one ends with the same bits as one that was never interrupted.
"""

import time
from dataclasses import dataclass, field
from functools import partial
from math import isfinite

from torch import Tensor

from services.worker.spec import (
    CheckpointMessage,
    EvaluationMessage,
    ProgressMessage,
    StepMetrics,
)
from services.worker.training.checkpoint import Checkpoint, RunState, Shelf
from services.worker.training.evaluate import AdaptedModel, Score, evaluate
from services.worker.training.forgetting import Memory
from services.worker.training.optimizer import Optimizer
from services.worker.training.plan import Plan, learning_rate
from services.worker.training.prefix import PrefixCache
from services.worker.training.report import Reporter
from services.worker.training.share import Share
from services.worker.training.signals import Interrupted
from services.worker.training.team import Team

CLIP_NORM = 1.0


class NonFiniteLoss(Exception):
    """Loss or gradient left the numbers; going on would only publish rubbish."""


@dataclass
class Run:
    """One attempt: what it trains and on what, how far it is, and where it says so."""

    team: Team
    model: AdaptedModel
    share: Share
    """Of the training rows; the three sets of states below are of this process's rows, too."""
    train: PrefixCache
    validation: PrefixCache
    test: PrefixCache | None
    memory: Memory
    plan: Plan

    optimizer: Optimizer
    state: RunState
    best: dict[str, Tensor]
    """The best checkpoint's factors; empty before the first epoch's evaluation."""

    shelf: Shelf
    checkpoint_seconds: float
    report: Reporter


def train(run: Run) -> bool:
    """Train to the end, or until validation stops improving; say whether it stopped early.

    Raises Interrupted (after a checkpoint, where one was asked for) and NonFiniteLoss.
    """
    state, plan = run.state, run.plan
    patience = state.identity.hyperparameters.early_stopping_patience
    pace = _Pace(state.step)
    last_saved = time.monotonic()
    try:
        if state.step == 0:
            _evaluate(run)  # the base model's own figures
        # A resume begins in the epoch of the last step done: its evaluation may not be done yet.
        for epoch in range(plan.epoch_of(max(state.step, 1)), plan.n_epochs + 1):
            last_step = epoch * plan.steps_per_epoch
            for step in range(state.step + 1, last_step + 1):
                pace.tokens += _step(run)
                if step < last_step:
                    run.report.emit(pace.report(run))
                    if time.monotonic() - last_saved >= run.checkpoint_seconds:
                        _save(run)
                        last_saved = time.monotonic()
            if state.evaluated_step < last_step:
                _evaluate(run)
                run.report.emit(pace.report(run))
                _save(run)
                last_saved = time.monotonic()
            if last_step < plan.total_steps and state.evaluations_without_gain >= patience:
                return True
        return False
    except Interrupted as request:
        if request.keep and state.step:
            _save(run)
        raise


def _step(run: Run) -> int:
    """One optimiser step, after whose last micro-batch the weights change; return its tokens.

    Every process of a team has its own rows of the batch, maybe none, and their part of the sums.
    """
    step = run.state.step + 1
    batch = run.plan.batch(step)
    answer_tokens = run.share.answer_tokens(batch)
    gradient = run.model.adapter.grad
    gradient.zero_()
    total, right, row_tokens = 0.0, 0.0, 0.0
    groups = run.train.micro_batches(run.share.members(batch))
    for done, group in enumerate(groups):
        run.report.working("training", done, len(groups))
        pack = run.train.pack(group)
        states = run.model.final_states(run.train, pack)
        loss, correct = run.model.base.answer_loss(states, pack)
        # Every answer token of the step weighs the same, whichever micro-batch it is in.
        (loss / answer_tokens).backward()  # type: ignore[no-untyped-call]
        total, right = total + loss.item(), right + correct
        row_tokens += pack.row_tokens
    run.team.add_up(gradient)
    total, right, row_tokens = run.team.sums(total, right, row_tokens)
    norm = float(gradient.norm())
    if not (isfinite(total) and isfinite(norm)):
        raise NonFiniteLoss(f"The loss was no longer a finite number at step {step}.")
    gradient.mul_(min(1.0, CLIP_NORM / (norm + 1e-6)))
    hyperparameters = run.state.identity.hyperparameters
    run.optimizer.step(learning_rate(step, run.plan.total_steps, hyperparameters))
    run.state.step = run.report.step = step
    run.state.trained_tokens += int(row_tokens)
    run.state.history.append(
        StepMetrics(
            step=step,
            epoch=run.plan.epoch_of(step),
            train_loss=total / answer_tokens,
            train_accuracy=right / answer_tokens,
        )
    )
    return int(row_tokens)


def _evaluate(run: Run) -> None:
    """Score the validation rows, remember the best adapter, and report."""
    state = run.state
    working = partial(run.report.working, "evaluating")
    score = evaluate(run.model, run.validation, working, team=run.team)
    if not isfinite(score.loss):
        raise NonFiniteLoss(f"The validation loss was not a finite number at step {state.step}.")
    budget = state.identity.hyperparameters.forgetting_budget
    increase = _rise(run) if budget is not None and state.step else None
    best = _note(state, score, increase)
    if best:
        run.best = run.model.adapter.tensors()
    run.report.emit(
        EvaluationMessage(
            step=state.step, epoch=state.epoch, loss=score.loss, accuracy=score.accuracy, best=best
        )
    )


def _rise(run: Run) -> float:
    """By how much more is forgotten: few rows, which the leader scores for all."""
    (increase,) = run.team.leaders(run.memory.rise() if run.team.leads else 0.0)
    return increase


def _note(state: RunState, score: Score, increase: float | None) -> bool:
    """Enter an evaluation into ``state`` and say whether it is the best so far.

    The best has the highest token accuracy, then the lowest loss: while facts are memorised, the
    loss of the few answers still wrong goes up long before the number of right ones stops growing.
    For the same reason, training stops early only when neither gets any better. The base model
    (step 0) is never the best: it is not a result.

    Where a budget limits the ``increase`` of what is forgotten, what is within it goes before what
    is not, and of that the least forgetful. What is learnt at a higher price is no gain.
    """
    state.evaluated_step = state.step
    if state.step == 0:
        state.base_loss, state.base_accuracy = score.loss, score.accuracy
        return False
    state.history[-1] = state.history[-1].model_copy(
        update={
            "valid_loss": score.loss,
            "valid_accuracy": score.accuracy,
            "forgetting_increase": increase,
        }
    )
    first = state.best_step == 0
    forgotten = 0.0 if increase is None else increase
    best = first or _rank(state, score, forgotten) > _rank(
        state, Score(state.best_loss, state.best_accuracy), state.best_increase
    )
    gain = best or (_within(state, forgotten) and score.loss < state.lowest_loss)
    state.lowest_loss = score.loss if first else min(state.lowest_loss, score.loss)
    state.evaluations_without_gain = 0 if gain else state.evaluations_without_gain + 1
    if best:
        state.best_step, state.best_increase = state.step, forgotten
        state.best_loss, state.best_accuracy = score.loss, score.accuracy
    return best


def _rank(state: RunState, score: Score, increase: float) -> tuple[bool, float, float]:
    if not _within(state, increase):
        return False, -increase, 0.0
    return True, score.accuracy, -score.loss


def _within(state: RunState, increase: float) -> bool:
    budget = state.identity.hyperparameters.forgetting_budget
    return budget is None or increase <= budget


def _save(run: Run) -> None:
    if not run.team.leads:
        return
    path = run.shelf.save(
        Checkpoint(
            state=run.state,
            adapter=run.model.adapter.tensors(),
            best=run.best,
            moments=run.optimizer.moments(),
        ),
        run.plan.steps_per_epoch,
    )
    run.report.emit(CheckpointMessage(step=run.state.step, path=path))


@dataclass
class _Pace:
    """How fast this attempt goes, evaluations included."""

    first_step: int
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    def report(self, run: Run) -> ProgressMessage:
        """Progress after the step just done."""
        state = run.state
        seconds = max(time.monotonic() - self.started, 1e-9)
        per_step = seconds / max(1, state.step - self.first_step)
        return ProgressMessage(
            metrics=state.history[-1],
            total_steps=run.plan.total_steps,
            tokens_per_second=self.tokens / seconds,
            seconds_left=per_step * (run.plan.total_steps - state.step),
        )
