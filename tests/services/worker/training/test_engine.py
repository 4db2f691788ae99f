"""Whole jobs on the tiny model: what is reported, what is written, and what resuming yields."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from services.worker.spec import ServedCheck, TrainerMessage, TrainSpec
from services.worker.training import evaluate, report
from services.worker.training.data import BadData
from services.worker.training.loop import NonFiniteLoss
from services.worker.training.prefix import Room
from services.worker.training.process import failure_message
from services.worker.training.signals import Interrupted
from services.worker.training.warm_trainer import BadConfiguration
from shared.storage import verify_manifest
from tests.services.worker.training.conftest import Trainer, chat, silent, write_rows

MakeSpec = Callable[..., TrainSpec]


def bytes_of(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def stop_after(trainer: Trainer, step: int, flag: str = "stop") -> None:
    """Ask the trainer to end once ``step`` has been reported."""

    def listen(message: TrainerMessage) -> None:
        if message.kind == "progress" and message.metrics.step == step:
            getattr(trainer.signals, flag).set()

    trainer.on_message = listen


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


def test_a_resumed_job_exports_the_kept_epochs_of_its_earlier_attempts_too(
    trainer: Trainer, make_spec: MakeSpec
) -> None:
    numbers = {"n_epochs": 5, "checkpoint_seconds": 1000}
    unbroken = trainer.train(make_spec(attempt=1, **numbers))
    stop_after(trainer, 26)
    interrupted = make_spec(attempt=2, **numbers)
    with pytest.raises(Interrupted):
        trainer.train(interrupted)
    trainer.on_message = silent
    last = make_spec(attempt=3, resume_from=(interrupted.attempt_dir,), **numbers)
    resumed = trainer.train(last)
    assert [exported.step for exported in resumed.checkpoints][-2:] == [24, 30]
    assert all(c.path.is_relative_to(last.attempt_dir) for c in resumed.checkpoints)
    for one, other in zip(resumed.checkpoints[-2:], unbroken.checkpoints[-2:], strict=True):
        assert one.metrics == other.metrics
        assert bytes_of(one.path) == bytes_of(other.path)


def test_every_checkpoint_resumes_to_the_same_bits(
    trainer: Trainer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"

    def keep(message: TrainerMessage) -> None:
        if message.kind == "checkpoint":
            target = kept / str(message.step)
            shutil.copytree(message.path, target / message.path.name)

    trainer.on_message = keep
    unbroken = trainer.train(make_spec(attempt=1, n_epochs=2))
    trainer.on_message = silent
    steps = sorted(int(p.name) for p in kept.iterdir())
    assert steps == list(range(1, unbroken.total_steps + 1))
    for step in steps:
        spec = make_spec(attempt=100 + step, n_epochs=2, resume_from=(kept / str(step),))
        resumed = trainer.train(spec)
        assert trainer.of("started")[-1].step == step
        assert resumed.steps_this_attempt == unbroken.total_steps - step
        assert resumed.history == unbroken.history
        assert resumed.best_step == unbroken.best_step
        assert bytes_of(resumed.adapter_dir) == bytes_of(unbroken.adapter_dir)


def test_stop_saves_and_the_next_attempt_goes_on(trainer: Trainer, make_spec: MakeSpec) -> None:
    unbroken = trainer.train(make_spec(attempt=1))
    stop_after(trainer, 8)
    interrupted = make_spec(attempt=2, checkpoint_seconds=1000)
    with pytest.raises(Interrupted):
        trainer.train(interrupted)
    assert trainer.messages[-1].kind == "checkpoint"
    assert trainer.messages[-1].step == 8
    trainer.on_message = silent
    resumed = trainer.train(make_spec(attempt=3, resume_from=(interrupted.attempt_dir,)))
    assert resumed.steps_this_attempt == unbroken.total_steps - 8
    assert bytes_of(resumed.adapter_dir) == bytes_of(unbroken.adapter_dir)


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither memory nor disk for the frozen layers' states."""
    monkeypatch.setattr(Room, "here", lambda _: Room(memory=0, disk=0))


def test_a_run_without_room_computes_states_on_the_fly_and_resumes_to_the_same_bits(
    trainer: Trainer, make_spec: MakeSpec, no_room: None
) -> None:
    unbroken = trainer.train(make_spec(attempt=1))
    stop_after(trainer, 8)
    interrupted = make_spec(attempt=2)
    with pytest.raises(Interrupted):
        trainer.train(interrupted)
    trainer.on_message = silent
    resumed = trainer.train(make_spec(attempt=3, resume_from=(interrupted.attempt_dir,)))
    assert resumed.steps_this_attempt == unbroken.total_steps - 8
    assert bytes_of(resumed.adapter_dir) == bytes_of(unbroken.adapter_dir)


@pytest.mark.parametrize("first", ["room", "none"])
def test_a_run_stays_with_the_states_of_its_first_attempt(
    trainer: Trainer, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    plenty, none = Room(1 << 40, 1 << 40), Room(0, 0)
    rooms = [plenty, none] if first == "room" else [none, plenty]
    monkeypatch.setattr(Room, "here", lambda _: rooms[0])
    unbroken = trainer.train(make_spec(attempt=1))
    stop_after(trainer, 8)
    interrupted = make_spec(attempt=2)
    with pytest.raises(Interrupted):
        trainer.train(interrupted)
    trainer.on_message = silent
    rooms.reverse()
    resumed = trainer.train(make_spec(attempt=3, resume_from=(interrupted.attempt_dir,)))
    assert resumed.steps_this_attempt == unbroken.total_steps - 8
    assert bytes_of(resumed.adapter_dir) == bytes_of(unbroken.adapter_dir)


@pytest.mark.parametrize("phase", ["reading", "prefix", "training", "evaluating"])
def test_a_stop_is_obeyed_in_every_phase_and_each_gives_signs_of_life(
    trainer: Trainer, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr(report, "SILENCE_SECONDS", 0)

    def listen(message: TrainerMessage) -> None:
        if message.kind == "preparing" and message.phase == phase:
            trainer.signals.stop.set()

    trainer.on_message = listen
    with pytest.raises(Interrupted):
        trainer.train(make_spec())
    signs = trainer.of("preparing")
    heard = trainer.messages.index(next(sign for sign in signs if sign.phase == phase))
    assert len(trainer.messages) - heard <= 5  # what was being done, and a checkpoint
    assert all(sign.done >= 0 for sign in signs)


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


def test_abort_saves_nothing(trainer: Trainer, make_spec: MakeSpec) -> None:
    stop_after(trainer, 2, "abort")
    with pytest.raises(Interrupted):
        trainer.train(make_spec(checkpoint_seconds=1000))
    assert not trainer.of("checkpoint")


def test_stop_during_an_epochs_evaluation_evaluates_after_the_resume(
    trainer: Trainer, make_spec: MakeSpec
) -> None:
    unbroken = trainer.train(make_spec(attempt=1))
    interrupted = make_spec(attempt=2, checkpoint_seconds=1000)
    # Step 6 ends the epoch: its one micro-batch polls once, its evaluation polls next.
    poll, calls = trainer.signals.poll, []

    def poll_and_count() -> None:
        progressed = trainer.of("progress")
        if progressed and progressed[-1].metrics.step == 5:
            calls.append(1)
            if len(calls) == 2:
                trainer.signals.stop.set()
        poll()

    trainer.signals.poll = poll_and_count  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        trainer.train(interrupted)
    assert trainer.messages[-1].step == 6
    trainer.signals.poll = poll  # type: ignore[method-assign]
    resumed = trainer.train(make_spec(attempt=3, resume_from=(interrupted.attempt_dir,)))
    assert resumed.history == unbroken.history
    assert bytes_of(resumed.adapter_dir) == bytes_of(unbroken.adapter_dir)


def interrupted_attempt(trainer: Trainer, make_spec: MakeSpec) -> Path:
    """Folder of an attempt stopped after step 9 with checkpoints of the last two steps."""
    stop_after(trainer, 9)
    spec = make_spec(attempt=50)
    with pytest.raises(Interrupted):
        trainer.train(spec)
    trainer.on_message = silent
    return spec.attempt_dir


@pytest.mark.parametrize("damage", ["cut", "flip", "manifest", "state", "temporary"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_older(
    trainer: Trainer, make_spec: MakeSpec, damage: str
) -> None:
    folder = interrupted_attempt(trainer, make_spec)
    newest = folder / "step-000000009"
    weights = newest / "optimizer.safetensors"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-5])
        case "flip":
            weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
        case "manifest":
            (newest / "MANIFEST.json").unlink()
        case "state":
            (newest / "state.json").write_text("{}")
        case "temporary":
            newest.rename(folder / ".tmp-step-000000009-aa")
    resumed = trainer.train(make_spec(attempt=51, resume_from=(folder,)))
    assert trainer.of("started")[-1].step == 8
    assert resumed.step == resumed.total_steps


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"learning_rate": 0.02}, {"base_sha256": "1" * 64}]
)
def test_a_checkpoint_of_another_run_is_not_resumed(
    trainer: Trainer, make_spec: MakeSpec, change: dict[str, object]
) -> None:
    folder = interrupted_attempt(trainer, make_spec)
    trainer.train(make_spec(attempt=51, resume_from=(folder,), **change))
    assert trainer.of("started")[-1].step == 0


def test_a_changed_profile_means_a_fresh_start_that_is_explained(
    trainer: Trainer, make_spec: MakeSpec, catalog: Path, tmp_path: Path
) -> None:
    folder = interrupted_attempt(trainer, make_spec)
    narrower = tmp_path / "catalog.toml"
    narrower.write_text(catalog.read_text().replace('"v_proj", ', ""))
    after = Trainer(narrower)
    done = after.train(make_spec(attempt=51, resume_from=(folder,)))
    (started,) = after.of("started")
    assert started.step == 0
    assert started.fresh_because == (
        "The checkpoint of step 9 was made with another adapter profile"
    )
    assert done.steps_this_attempt == done.total_steps


def test_a_changed_template_means_a_fresh_start_that_is_explained(
    trainer: Trainer, make_spec: MakeSpec
) -> None:
    folder = interrupted_attempt(trainer, make_spec)
    warm = trainer.warm_trainer._warm
    assert warm is not None
    warm.encoder.sha256 = "of another template"
    trainer.train(make_spec(attempt=51, resume_from=(folder,)))
    started = trainer.of("started")[-1]
    assert started.step == 0
    assert "tokenizer or chat template" in started.fresh_because


def test_half_the_micro_batch_goes_on_at_the_checkpoint_and_says_what_differs(
    trainer: Trainer, make_spec: MakeSpec
) -> None:
    folder = interrupted_attempt(trainer, make_spec)
    trainer.train(make_spec(attempt=51, resume_from=(folder,), micro_batch_divisor=2))
    started = trainer.of("started")[-1]
    assert (started.step, started.fresh_because) == (9, None)
    assert started.differs == "micro-batch divisor 2 instead of 1"
    again = make_spec(attempt=52, resume_from=(folder,))
    trainer.train(again)
    assert trainer.of("started")[-1].differs is None


def test_checkpoints_are_committed_pruned_and_hold_no_pickle(
    trainer: Trainer, make_spec: MakeSpec
) -> None:
    spec = make_spec()
    done = trainer.train(spec)
    kept = sorted(spec.attempt_dir.glob("step-*"))
    assert {p.name for p in kept} == {
        f"step-{step:09d}" for step in (6, 12, done.best_step, done.step - 1, done.step)
    }
    for folder in kept:
        assert verify_manifest(folder)["step"] == int(folder.name[5:])
        assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".json"}
    assert not list(spec.attempt_dir.glob(".tmp-*"))
    assert {p.name for p in spec.attempt_dir.iterdir() if p not in kept} == {
        "adapter",
        "served_check.json",
        *(f"adapter-step-{step:09d}" for step in (6, 12, 18)),
    }


def test_two_jobs_through_one_warm_trainer_are_as_if_alone(
    trainer: Trainer, make_spec: MakeSpec, catalog: Path, tmp_path: Path
) -> None:
    other = write_rows(tmp_path / "other.jsonl", [chat(f"q{i}", f"x{i}") for i in range(16)])
    alone = Trainer(catalog).train(make_spec(attempt=1))
    trainer.train(make_spec(attempt=2, train_rows=other, seed=99))
    second = trainer.train(make_spec(attempt=3))
    assert second.history == alone.history
    assert bytes_of(second.adapter_dir) == bytes_of(alone.adapter_dir)


def test_a_changed_base_is_refused(trainer: Trainer, make_spec: MakeSpec) -> None:
    trainer.train(make_spec(attempt=1, n_epochs=1))
    warm = trainer.warm_trainer._warm
    assert warm is not None
    warm.frozen.layers[0].products["o"][0, 0] += 1
    with pytest.raises(RuntimeError, match="changed"):
        trainer.train(make_spec(attempt=2))


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
