"""What the user reads while a job runs: OpenAI's messages and metrics, thinned out."""

from math import ceil
from typing import Any

from services.worker.lease import FeedLine
from services.worker.spec import (
    EvaluationMessage,
    PreparingMessage,
    ProgressMessage,
    StartedMessage,
    StepMetrics,
)

METRICS_EVENTS = 500
"""About so many metrics events a job, however many steps it has."""


def as_openai_metrics(metrics: StepMetrics) -> dict[str, Any]:
    """Return the figures under OpenAI's names; what was not measured is left out.

    Validation always covers all validation rows, so the ``full_`` figures equal the others.
    """
    named = {
        "step": metrics.step,
        "train_loss": metrics.train_loss,
        "train_mean_token_accuracy": metrics.train_accuracy,
        "valid_loss": metrics.valid_loss,
        "valid_mean_token_accuracy": metrics.valid_accuracy,
        "full_valid_loss": metrics.valid_loss,
        "full_valid_mean_token_accuracy": metrics.valid_accuracy,
        "forgetting_increase": metrics.forgetting_increase,
    }
    return {name: value for name, value in named.items() if value is not None}


def worth_an_event(message: ProgressMessage) -> bool:
    """Keep the first, the last, the evaluated, and every n-th step in between."""
    step, total = message.metrics.step, message.total_steps
    evaluated = message.metrics.valid_loss is not None
    return evaluated or step in {1, total} or step % ceil(total / METRICS_EVENTS) == 0


def step_event(message: ProgressMessage) -> FeedLine:
    """``Step i/N: training loss=…`` with its figures."""
    metrics = message.metrics
    text = f"Step {metrics.step}/{message.total_steps}: training loss={metrics.train_loss:.4f}"
    if metrics.valid_loss is not None:
        text += f", validation loss={metrics.valid_loss:.4f}"
    if metrics.forgetting_increase is not None:
        text += f", loss on general texts {metrics.forgetting_increase:+.1%}"
    data = as_openai_metrics(metrics) | {"total_steps": message.total_steps}
    return FeedLine(text, "metrics", data)


def base_event(message: EvaluationMessage) -> FeedLine:
    """The base model's figures on the validation rows; later ones come with their steps."""
    text = f"Before training: full validation loss={message.loss:.4f}"
    data = {
        "step": message.step,
        "full_valid_loss": message.loss,
        "full_valid_mean_token_accuracy": message.accuracy,
    }
    return FeedLine(text, "metrics", data)


def started_text(message: StartedMessage) -> str:
    """How the feed says that training begins, or goes on."""
    if message.step:
        return f"Fine-tuning job goes on at step {message.step}/{message.total_steps}"
    return "Fine-tuning job started"


def remarks(message: StartedMessage) -> list[str]:
    """What the user should know of how this attempt stands to those before it."""
    found = []
    if message.fresh_because:
        found.append(f"{message.fresh_because}; training starts anew")
    if message.differs:
        found.append(f"This attempt has {message.differs}; results may differ in the last bits")
    return found


def preparing_row(message: PreparingMessage) -> dict[str, Any]:
    """What is added to the job's ``progress`` while work takes long; the next step removes it."""
    return {
        "step": message.step,
        "phase": message.phase,
        "done": message.done,
        "total": message.total,
    }


def progress_row(message: ProgressMessage) -> dict[str, Any]:
    """Contents of the job's ``progress`` column."""
    return {
        "step": message.metrics.step,
        "total_steps": message.total_steps,
        "epoch": message.metrics.epoch,
        "loss": message.metrics.train_loss,
        "tokens_per_second": message.tokens_per_second,
        "seconds_left": message.seconds_left,
    }
