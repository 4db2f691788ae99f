import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.training.plan import Plan, buckets, learning_rate
from shared.jobs.hyperparameters import Hyperparameters

NUMBERS = Hyperparameters(
    n_epochs=3,
    batch_size=4,
    learning_rate_multiplier=1,
    learning_rate=0.002,
    warmup_ratio=0.1,
    rank=8,
    alpha=16,
    early_stopping_patience=2,
)


@given(rows=st.integers(1, 60), batch=st.integers(1, 16), seed=st.integers(0, 2**31 - 1))
def test_every_epoch_sees_every_row_once(rows: int, batch: int, seed: int) -> None:
    plan = Plan(rows, batch, 2, seed)
    for epoch in (1, 2):
        steps = [s for s in range(1, plan.total_steps + 1) if plan.epoch_of(s) == epoch]
        assert Counter(row for step in steps for row in plan.batch(step)) == Counter(range(rows))
        assert (len(steps), steps[-1]) == (plan.steps_per_epoch, epoch * plan.steps_per_epoch)


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    one, other = Plan(100, 8, 4, 5), Plan(100, 8, 4, 5)
    assert [one.batch(s) for s in (30, 2, 17)] == [other.batch(s) for s in (30, 2, 17)]
    assert one.batch(1) != one.batch(1 + one.steps_per_epoch)
    assert one.batch(1) != Plan(100, 8, 4, 6).batch(1)


def test_a_batch_costs_the_same_however_many_rows_there_are() -> None:
    plan = Plan(100_000, 8, 2, 5)
    plan.batch(1)
    began = time.process_time()
    batches = [plan.batch(step) for step in range(1, 101)]
    assert time.process_time() - began < 0.5  # a shuffle of all rows for each took 4 s
    assert len({row for batch in batches for row in batch}) == 800


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40),
    budget=st.integers(1, 1000),
)
def test_buckets_hold_every_row_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    groups = buckets(range(len(lengths)), lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget


def test_rate_rises_then_falls_and_depends_on_the_step_alone() -> None:
    rates = [learning_rate(step, 100, NUMBERS) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.0002)
    assert max(rates) == rates[9] == pytest.approx(0.002)
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 0.0001
    assert learning_rate(57, 100, NUMBERS) == rates[56]


@pytest.mark.parametrize("total", [1, 2, 3])
def test_shortest_runs_have_a_rate(total: int) -> None:
    assert all(learning_rate(step, total, NUMBERS) > 0 for step in range(1, total + 1))
