"""``auto`` hyperparameters become numbers from the data set's size, in one documented function."""

from math import ceil
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from shared.catalog import BaseModelEntry

Auto = Literal["auto"]
N = TypeVar("N", int, float)


class Requested(BaseModel):
    """What a job may ask for; OpenAI's names and limits."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, allow_inf_nan=False)] = "auto"


class Hyperparameters(BaseModel):
    """What a job trains with: numbers only."""

    model_config = ConfigDict(frozen=True)

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    learning_rate: float
    """Peak, ``learning_rate_multiplier`` times the catalog's."""
    warmup_ratio: float = 0.05
    rank: int
    alpha: int
    early_stopping_patience: int
    """Evaluations without improvement after which training stops."""
    held_out: int = 0
    """Rows of the training file, at most, that are set apart and only reported on."""
    training_share: float = 1.0
    """Of the rows that could be learnt, so many are, 1 being all."""
    forgetting_budget: float | None = None
    """By how much, at most, the loss on texts that are not the company's may rise: 0.1 is a tenth
    of what it was. None: by as much as it does."""


AUTO_STEPS = 400
"""About as many optimiser steps as a data set gets by itself: measured, see docs/benchmarks.md."""
MIN_AUTO_EPOCHS = 2
MAX_AUTO_EPOCHS = 20


def resolve(requested: Requested, rows: int, base: BaseModelEntry) -> Hyperparameters:
    """Replace ``auto`` by numbers for a training file of ``rows`` rows.

    Epochs: few rows are seen often (a small model needs more than about five looks at a fact),
    thousands of rows twice; between them every data set gets about AUTO_STEPS steps. Training
    stops early when the validation rows no longer improve. Batch size and learning rate are the
    catalog's.
    """
    batch_size = _number(requested.batch_size, base.defaults.batch_size)
    n_epochs = _number(requested.n_epochs, _auto_epochs(rows, batch_size))
    multiplier = _number(requested.learning_rate_multiplier, 1.0)
    return Hyperparameters(
        n_epochs=n_epochs,
        batch_size=batch_size,
        learning_rate_multiplier=multiplier,
        learning_rate=base.defaults.learning_rate * multiplier,
        rank=base.defaults.rank,
        alpha=base.defaults.alpha,
        early_stopping_patience=max(2, n_epochs // 4),
    )


def _auto_epochs(rows: int, batch_size: int) -> int:
    epochs = round(AUTO_STEPS / ceil(rows / batch_size))
    return min(MAX_AUTO_EPOCHS, max(MIN_AUTO_EPOCHS, epochs))


def _number(requested: Auto | N, default: N) -> N:
    return default if requested == "auto" else requested
