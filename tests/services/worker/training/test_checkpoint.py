"""Which checkpoints a run finds, which it keeps, and what it says of those that do not fit."""

from pathlib import Path

import pytest
import torch

from services.worker.spec import StepMetrics
from services.worker.training.checkpoint import (
    Checkpoint,
    Conditions,
    RunIdentity,
    RunState,
    Shelf,
    listed,
)
from shared.jobs.hyperparameters import Hyperparameters

EPOCH = 10
IDENTITY = RunIdentity(
    base_sha256="b",
    profile_sha256="p",
    data_sha256="d",
    encoder_sha256="e",
    tokens_sha256="t",
    plan_version=1,
    seed=7,
    hyperparameters=Hyperparameters(
        n_epochs=9,
        batch_size=4,
        learning_rate_multiplier=1,
        learning_rate=0.01,
        rank=8,
        alpha=16,
        early_stopping_patience=2,
    ),
)
CONDITIONS = Conditions(threads=2, micro_batch_divisor=1, versions={"torch": "2.9"})


def at(step: int, best: int = 0, identity: RunIdentity = IDENTITY) -> Checkpoint:
    tensors = {"x": torch.zeros(3)}
    metrics = StepMetrics(step=step, epoch=1, train_loss=1, train_accuracy=0)
    state = RunState(
        identity=identity,
        conditions=CONDITIONS,
        prefix="kept",
        step=step,
        best_step=best,
        history=[metrics],
    )
    return Checkpoint(state=state, adapter=tensors, best=tensors, moments=tensors)


def steps(*folders: Path) -> list[int]:
    return sorted(step for folder in folders for step, _ in listed(folder))


def test_epoch_ends_survive_the_checkpoints_between_them(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, (), IDENTITY)
    for step in range(1, 58):
        shelf.save(at(step, best=20), EPOCH)
    assert steps(tmp_path) == [20, 30, 40, 50, 56, 57]
    assert [found.state.step for found in shelf.epoch_ends(EPOCH)] == [50, 40, 30, 20]


def test_what_is_superseded_goes_from_all_attempts(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "123")
    for step in range(1, 13):
        Shelf(first, (), IDENTITY).save(at(step), EPOCH)
    (first / ".tmp-step-000000013-ab").mkdir()  # its attempt was killed
    resumed = Shelf(second, (first,), IDENTITY)
    assert resumed.newest().state.step == 12  # type: ignore[union-attr]
    assert steps(first) == [10, 11, 12]
    resumed.save(at(13), EPOCH)
    assert (steps(first), steps(second)) == ([10, 12], [13])
    resumed.save(at(14), EPOCH)
    assert (steps(first), steps(second)) == ([10], [13, 14])
    assert [path.name for path in first.iterdir()] == ["step-000000010"]
    assert [c.state.step for c in Shelf(third, (second, first), IDENTITY).epoch_ends(EPOCH)] == [10]


def test_nothing_is_removed_before_a_newer_one_is_saved(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    Shelf(first, (), IDENTITY).save(at(5), EPOCH)
    other = IDENTITY.model_copy(update={"seed": 8})
    shelf = Shelf(second, (first,), other)
    assert shelf.newest() is None
    assert steps(first) == [5]
    shelf.save(at(1, identity=other), EPOCH)
    assert steps(first) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profile_sha256": "q"}, "another adapter profile"),
        ({"tokens_sha256": "u"}, "other token ids or another split"),
        ({"encoder_sha256": "f", "tokens_sha256": "u"}, "another tokenizer or chat template"),
        ({"plan_version": 2}, "another version of the training plan"),
        ({"seed": 8, "base_sha256": "c"}, "another base model and another seed"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_not_resumed_and_says_why(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    first = tmp_path / "1"
    Shelf(first, (), IDENTITY).save(at(5), EPOCH)
    shelf = Shelf(tmp_path / "2", (first,), IDENTITY.model_copy(update=change))
    assert shelf.newest() is None
    assert shelf.unfit == f"The checkpoint of step 5 was made with {words}"
    assert Shelf(tmp_path / "2", (first,), IDENTITY).unfit is None


def test_one_of_another_versions_shape_is_said_to_be_unreadable(tmp_path: Path) -> None:
    first = tmp_path / "1"
    path = Shelf(first, (), IDENTITY).save(at(5), EPOCH)
    (path / "state.json").write_text("{}")
    shelf = Shelf(tmp_path / "2", (first,), IDENTITY)
    assert shelf.unfit == "The checkpoint of step 5 is damaged or of another version of Tailor"


def test_other_conditions_are_named() -> None:
    now = Conditions(threads=4, micro_batch_divisor=2, versions={"torch": "2.9"})
    assert (
        now.differences(CONDITIONS) == "threads 4 instead of 2, micro-batch divisor 2 instead of 1"
    )
    assert now.differences(now) == ""
