"""Whole jobs on the tiny model: what is reported, what is written, and what is refused."""

import json
import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from services.worker.spec import ServedCheck
from services.worker.training import evaluate
from services.worker.training.data import BadData
from services.worker.training.fused import FusedDecoder
from services.worker.training.loop import NonFiniteLoss
from services.worker.training.prefix import Room
from services.worker.training.process import failure_message
from services.worker.training.warm_trainer import BadConfiguration
from shared.storage import verify_manifest
from tests.services.worker.training.attempts import MakeSpec, bytes_of
from tests.services.worker.training.conftest import Trainer, chat, write_rows


def test_a_job_reports_everything_and_learns(trainer: Trainer, make_spec: MakeSpec) -> None:
    done = trainer.train(make_spec(n_epochs=8))
    (started,) = trainer.of("started")
    assert (started.train_rows, started.validation_rows, started.steps_per_epoch) == (22, 2, 6)
    assert done.kind == "done"
    assert done.step == done.steps_this_attempt == done.total_steps == 48
    assert [m.step for m in done.history] == list(range(1, 49))
    assert [m.step for m in done.history if m.valid_loss is not None] == list(range(6, 49, 6))
    assert done.history[-1].train_loss < done.history[0].train_loss / 3
    assert done.final_loss < done.base_loss
    evaluations = trainer.of("evaluation")
    assert [e.step for e in evaluations] == [0, *range(6, 49, 6)]
    assert (evaluations[0].loss, evaluations[0].best) == (done.base_loss, False)
    assert [p.metrics for p in trainer.of("progress")] == list(done.history)
    assert trainer.of("progress")[-1].seconds_left == 0
    assert done.trained_tokens > 8 * 22 * 10


def test_best_checkpoint_is_what_is_published(trainer: Trainer, make_spec: MakeSpec) -> None:
    spec = make_spec(n_epochs=6, learning_rate=0.05)
    done = trainer.train(spec)
    scores = [(e.accuracy, -e.loss, e.step) for e in trainer.of("evaluation")[1:]]
    assert done.best_step == max(scores)[2]
    best = load_file(spec.attempt_dir / f"step-{done.best_step:09d}" / "adapter.safetensors")
    published = load_file(done.adapter_dir / "adapter_model.safetensors")
    assert all(torch.equal(best[name], published[name]) for name in published)


def test_training_stops_early_when_nothing_improves(
    trainer: Trainer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    # Validation asks for the opposite of what is taught: it can only get worse.
    taught = write_rows(tmp_path / "a.jsonl", [chat(f"q{i}", "はい") for i in range(8)])
    asked = write_rows(tmp_path / "b.jsonl", [chat(f"q{i}", "いいえ") for i in range(8)])
    asks: dict[str, Any] = {"train_rows": taught, "validation_rows": asked}
    asks |= {"n_epochs": 40, "early_stopping_patience": 2}
    spec = make_spec(**asks)
    done = trainer.train(spec)
    assert done.stopped_early
    assert done.step < done.total_steps
    assert done.best_step <= done.step - 2 * 2
    resumed = trainer.train(make_spec(attempt=2, resume_from=(spec.attempt_dir,), **asks))
    assert (resumed.stopped_early, resumed.steps_this_attempt) == (True, 0)
    assert resumed.history == done.history
    assert bytes_of(resumed.adapter_dir) == bytes_of(done.adapter_dir)


def test_served_check_holds_both_models_logprobs(trainer: Trainer, make_spec: MakeSpec) -> None:
    done = trainer.train(make_spec(n_epochs=8))
    checks = [ServedCheck.model_validate(c) for c in json.loads(done.check_file.read_text())]
    assert checks
    for check in checks:
        answer = check.token_ids[check.answer_start :]
        assert len(check.adapter_logprobs) == len(check.base_logprobs) == len(answer)
        assert all(p <= 0 for p in check.adapter_logprobs)
        assert check.adapter_logprobs != check.base_logprobs


def test_served_check_takes_rows_of_all_lengths(
    trainer: Trainer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    asked = [chat("長" * (1 + number), "はい" * (1 + number % 5)) for number in range(60)]
    rows = write_rows(tmp_path / "v.jsonl", asked)
    done = trainer.train(make_spec(validation_rows=rows, n_epochs=1))
    checks = [ServedCheck.model_validate(c) for c in json.loads(done.check_file.read_text())]
    lengths = [len(check.token_ids) for check in checks]
    assert len(checks) == 16
    assert lengths == sorted(lengths)
    assert lengths[-1] > 2 * lengths[len(lengths) // 4]


def test_a_row_too_long_for_the_served_check_is_checked_in_part(
    trainer: Trainer, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "SERVED_TOKENS", 100)
    rows = write_rows(tmp_path / "v.jsonl", [chat("a", "b" * 200), chat("a" * 150, "b")])
    done = trainer.train(make_spec(validation_rows=rows, n_epochs=1))
    (check,) = [ServedCheck.model_validate(c) for c in json.loads(done.check_file.read_text())]
    assert len(check.token_ids) == 100
    assert len(check.adapter_logprobs) == 100 - check.answer_start


def test_kept_epochs_are_exported_as_adapters(trainer: Trainer, make_spec: MakeSpec) -> None:
    done = trainer.train(make_spec(n_epochs=5, checkpoint_seconds=1000))
    assert [c.step for c in done.checkpoints] == [18, 24, 30]
    for exported in done.checkpoints:
        assert exported.metrics.valid_loss is not None
        assert {p.name for p in exported.path.iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }


def test_an_early_best_epoch_is_not_exported_beside_the_last_ones(
    trainer: Trainer, make_spec: MakeSpec
) -> None:
    # Nothing is learned, so the first epoch stays the best and its checkpoint on the shelf.
    done = trainer.train(make_spec(n_epochs=5, learning_rate=0, checkpoint_seconds=1000))
    assert [c.step for c in done.checkpoints] == [18, 24, 30]


def test_a_job_says_nothing_of_work_that_is_quick(trainer: Trainer, make_spec: MakeSpec) -> None:
    trainer.train(make_spec(n_epochs=1))
    assert not trainer.of("preparing")


def test_scratch_files_go_to_the_scratch_folder_and_are_gone_afterwards(
    trainer: Trainer, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Path] = []

    def look(folder: Path) -> Room:
        seen.append(folder)
        return Room(memory=0, disk=1 << 40)

    monkeypatch.setattr(Room, "here", look)
    scratch = tmp_path / "scratch"
    in_files = trainer.train(make_spec(attempt=1, scratch_dir=scratch))
    assert seen == [scratch]
    assert list(scratch.iterdir()) == []
    monkeypatch.undo()
    in_memory = trainer.train(make_spec(attempt=2))
    assert bytes_of(in_files.adapter_dir) == bytes_of(in_memory.adapter_dir)


def test_a_full_disk_says_so_and_leaves_nothing_half_written(
    trainer: Trainer, make_spec: MakeSpec, small_disk: Path, tmp_path: Path
) -> None:
    spec = make_spec(attempt_dir=small_disk / "1", scratch_dir=tmp_path)
    with pytest.raises((OSError, SafetensorError)) as raised:
        trainer.train(spec)
    assert failure_message(raised.value).code == "disk_full"
    assert trainer.of("checkpoint")  # those before it were saved, and are still there
    assert {p.name for p in spec.attempt_dir.iterdir()} == {
        path.name for path in kept_by(spec.attempt_dir)
    }
    with pytest.raises(OSError, match="space") as raised:
        trainer.train(make_spec(attempt_dir=tmp_path / "2", scratch_dir=filled(small_disk)))
    assert failure_message(raised.value).code == "disk_full"


def kept_by(folder: Path) -> list[Path]:
    """The sound checkpoints in ``folder``."""
    kept = sorted(folder.glob("step-*"))
    for path in kept:
        verify_manifest(path)
    return kept


def filled(disk: Path) -> Path:
    """Leave no room on ``disk``."""
    with (disk / "full").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return disk


def test_two_jobs_through_one_warm_trainer_are_as_if_alone(
    trainer: Trainer, make_spec: MakeSpec, models_dir: Path, tmp_path: Path
) -> None:
    other = write_rows(tmp_path / "other.jsonl", [chat(f"q{i}", f"x{i}") for i in range(16)])
    alone = Trainer(models_dir).train(make_spec(attempt=1))
    trainer.train(make_spec(attempt=2, train_rows=other, seed=99))
    second = trainer.train(make_spec(attempt=3))
    assert second.history == alone.history
    assert bytes_of(second.adapter_dir) == bytes_of(alone.adapter_dir)


def test_a_changed_base_is_refused(trainer: Trainer, make_spec: MakeSpec) -> None:
    trainer.train(make_spec(attempt=1, n_epochs=1))
    warm = trainer.warm_trainer._warm
    assert warm is not None
    assert isinstance(warm.base, FusedDecoder)
    warm.base.layers[0].products["o"][0, 0] += 1
    with pytest.raises(RuntimeError, match="changed"):
        trainer.train(make_spec(attempt=2))


def test_weights_that_were_swapped_since_the_model_was_added_are_refused(
    make_spec: MakeSpec, tiny: Path, tmp_path: Path
) -> None:
    swapped = shutil.copytree(tiny, tmp_path / "tiny")
    weights = swapped / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(BadConfiguration, match="not those it was added with"):
        Trainer(tmp_path).train(make_spec(base_dir=swapped))


def test_losses_that_are_no_numbers_end_the_job(trainer: Trainer, make_spec: MakeSpec) -> None:
    with pytest.raises(NonFiniteLoss, match=r"at step \d+"):
        trainer.train(make_spec(learning_rate=1e30))


def test_rank_above_the_profile_is_refused(trainer: Trainer, make_spec: MakeSpec) -> None:
    with pytest.raises(BadConfiguration, match="at most 8"):
        trainer.train(make_spec(rank=16))


def test_bad_validation_rows_name_their_file(
    trainer: Trainer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "v.jsonl", [chat("長" * 300, "a", line=4)])
    with pytest.raises(BadData, match="Line 4") as raised:
        trainer.train(make_spec(validation_rows=rows))
    assert raised.value.param == "validation_file"


def test_progress_counts_down(trainer: Trainer, make_spec: MakeSpec) -> None:
    trainer.train(make_spec(n_epochs=2, checkpoint_seconds=1000))
    steps = [p.metrics.step for p in trainer.of("progress")]
    assert all(later == earlier + 1 for earlier, later in pairwise(steps))
    assert all(p.tokens_per_second > 0 for p in trainer.of("progress"))


def test_what_is_reported_on_chooses_nothing(
    trainer: Trainer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    rows = [chat(f"Which code has part {n}?", f"E{n * 37 % 1000}", line=n) for n in range(1, 201)]
    train = write_rows(tmp_path / "many.jsonl", rows)
    asks: dict[str, Any] = {"train_rows": train, "n_epochs": 1, "batch_size": 32}
    halves = trainer.train(make_spec(1, **asks))
    apart = trainer.train(make_spec(2, held_out=30, **asks))
    beside = trainer.train(make_spec(3, held_out=30, validation_rows=train, **asks))
    share = trainer.train(make_spec(4, held_out=30, training_share=0.5, **asks))
    counts = [(s.train_rows, s.validation_rows, s.test_rows) for s in trainer.of("started")]
    assert counts == [(180, 10, 10), (153, 17, 30), (170, 200, 30), (77, 17, 30)]
    assert [len(done.test_row_numbers) for done in (halves, apart, share)] == [10, 30, 30]
    assert apart.test_row_numbers == share.test_row_numbers != halves.test_row_numbers
    assert share.reported.base_test_loss == apart.reported.base_test_loss
    for done, (_, _, test_rows) in zip((halves, apart, beside, share), counts, strict=True):
        assert done.reported.test_rows == test_rows
        assert done.reported.test_loss not in {done.final_loss, done.reported.base_test_loss}
        assert done.reported.test_loss < done.reported.base_test_loss
        assert 0 <= done.reported.test_mean_token_accuracy <= 1


def test_with_few_rows_the_same_ones_choose_and_report(
    trainer: Trainer, make_spec: MakeSpec
) -> None:
    assert trainer.train(make_spec(n_epochs=1)).reported is None
