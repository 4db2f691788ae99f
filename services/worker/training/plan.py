"""Which rows each step trains on and how fast: pure functions of (seed, epoch, step)."""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from shared.jobs.hyperparameters import Hyperparameters

PLAN_VERSION = 1
"""Part of a run's identity: changed together with what ``batch`` or ``learning_rate`` yield."""
Lengths = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """The order of training; the same numbers give the same order on every machine."""

    rows: int
    batch_size: int
    n_epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps that see every row once."""
        return ceil(self.rows / self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole job."""
        return self.steps_per_epoch * self.n_epochs

    def epoch_of(self, step: int) -> int:
        """Epoch, from 1, that ``step`` (from 1) belongs to."""
        return (step - 1) // self.steps_per_epoch + 1

    def batch(self, step: int) -> list[int]:
        """Row numbers of ``step``, from 1; every epoch is its own shuffle of all rows."""
        order = _order(self.rows, self.seed, self.epoch_of(step))
        first = (step - 1) % self.steps_per_epoch * self.batch_size
        return order[first : first + self.batch_size].tolist()


@lru_cache(maxsize=1)
def _order(rows: int, seed: int, epoch: int) -> "array[int]":
    """Shuffle all rows for one epoch, 4 bytes each; kept until another epoch is asked for."""
    order = array("i", range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def buckets(members: Sequence[int], lengths: Lengths, token_budget: int) -> list[list[int]]:
    """Group rows of similar length so that rows × longest row stays within ``token_budget``.

    That product is what attention computes, padding included: rows of one length pad little. A row
    longer than the budget is a group of its own. Ties are broken by row number, so that the groups
    depend on ``members`` alone and not on their order.
    """
    groups: list[list[int]] = []
    for row in sorted(members, key=lambda member: (lengths[member], member)):
        # Rows come by length: this one would be the longest of the group it joins.
        if groups and (len(groups[-1]) + 1) * lengths[row] <= token_budget:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def learning_rate(step: int, total_steps: int, hyperparameters: Hyperparameters) -> float:
    """Rate of ``step`` (from 1): a linear rise to the peak, then a linear fall towards zero."""
    warmup = ceil(total_steps * hyperparameters.warmup_ratio)
    if step <= warmup:
        return hyperparameters.learning_rate * step / warmup
    return hyperparameters.learning_rate * (total_steps - step + 1) / (total_steps - warmup + 1)
