"""A job trained far too long on nonsense forgets; a budget makes an earlier checkpoint win."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.services.worker.training.attempts import MakeSpec, bytes_of
from tests.services.worker.training.conftest import Trainer, chat, write_rows
from tests.services.worker.training.test_real_base import BASE, ENTRY

pytestmark = pytest.mark.slow  # a trainer takes seconds to import


@pytest.fixture
def nonsense(tmp_path: Path) -> Path:
    """24 rows that nobody could answer."""
    draw = random.Random(1)
    texts = ["".join(draw.choices("qxzjkvw#%", k=12)) for _ in range(48)]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    rows = [chat(asked, said, line=line) for line, (asked, said) in enumerate(pairs, start=1)]
    return write_rows(tmp_path / "nonsense.jsonl", rows)


def evaluations(done: Any) -> list[Any]:
    return [each for each in done.history if each.valid_loss is not None]


def test_what_is_forgotten_is_reported(
    trainer: Trainer, make_spec: MakeSpec, nonsense: Path
) -> None:
    short = trainer.train(make_spec(1, train_rows=nonsense, n_epochs=1)).forgetting
    long = trainer.train(make_spec(2, train_rows=nonsense, n_epochs=12)).forgetting
    assert short.text_before == long.text_before
    assert short.instructions_before == long.instructions_before
    assert long.text_before < short.text_after < long.text_after
    assert long.instructions_after > max(long.instructions_before, short.instructions_after)


def test_a_budget_makes_an_earlier_checkpoint_win(
    trainer: Trainer, make_spec: MakeSpec, nonsense: Path
) -> None:
    asks: dict[str, Any] = {"train_rows": nonsense, "n_epochs": 12}
    free = trainer.train(make_spec(1, **asks))
    assert not free.over_budget
    assert all(each.forgetting_increase is None for each in free.history)
    spec = make_spec(2, forgetting_budget=0.018, **asks)
    held = trainer.train(spec)
    assert held.best_step < free.best_step
    assert not held.over_budget
    inside = [each for each in evaluations(held) if each.forgetting_increase <= 0.018]
    assert len(inside) < len(evaluations(held))
    assert held.best_step == max(inside, key=lambda e: (e.valid_accuracy, -e.valid_loss)).step
    increase = max(
        held.forgetting.text_after / held.forgetting.text_before,
        held.forgetting.instructions_after / held.forgetting.instructions_before,
    )
    (best,) = [each for each in inside if each.step == held.best_step]
    assert increase - 1 == pytest.approx(best.forgetting_increase)
    resumed = trainer.train(
        make_spec(3, forgetting_budget=0.018, resume_from=(spec.attempt_dir,), **asks)
    )
    assert bytes_of(resumed.adapter_dir) == bytes_of(held.adapter_dir)


def test_where_no_checkpoint_is_within_the_budget_the_least_forgetful_is_taken_and_it_is_said(
    trainer: Trainer, make_spec: MakeSpec, nonsense: Path
) -> None:
    asks: dict[str, Any] = {"learning_rate": 0.03, "early_stopping_patience": 2, "n_epochs": 12}
    done = trainer.train(make_spec(train_rows=nonsense, forgetting_budget=0.001, **asks))
    assert done.over_budget
    least = min(evaluations(done), key=lambda each: each.forgetting_increase)
    assert done.best_step == least.step
    assert done.stopped_early  # what is learnt beyond the budget is no gain


@pytest.mark.proof
@pytest.mark.skipif(not BASE.is_dir(), reason="`make setup` has not installed the base model")
def test_the_real_base_forgets_too(make_spec: MakeSpec, nonsense: Path) -> None:
    done = Trainer(None).train(
        make_spec(
            train_rows=nonsense,
            base_model=ENTRY.name,
            base_dir=BASE,
            threads=2,
            checkpoint_seconds=1000,
            learning_rate=2e-3,
            rank=16,
            alpha=32,
            n_epochs=6,
            batch_size=8,
            forgetting_budget=0.1,
        )
    )
    increases = [each.forgetting_increase for each in evaluations(done)]
    print(done.best_step, increases, done.forgetting)
    assert increases[-1] > 0.1
    assert done.best_step < done.step
