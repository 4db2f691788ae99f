"""Attempts that are stopped, and what resuming them yields."""

import shutil
from pathlib import Path

import pytest

from services.worker.spec import TrainerMessage
from services.worker.training import report
from services.worker.training.prefix import Room
from services.worker.training.signals import Interrupted
from shared.catalog import DESCRIPTION, read_description
from shared.storage import verify_manifest
from tests.services.worker.training.attempts import MakeSpec, bytes_of, interrupt, stop_after
from tests.services.worker.training.conftest import Trainer, silent


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
    assert getattr(trainer.messages[-1], "step", None) == 6
    trainer.signals.poll = poll  # type: ignore[method-assign]
    resumed = trainer.train(make_spec(attempt=3, resume_from=(interrupted.attempt_dir,)))
    assert resumed.history == unbroken.history
    assert bytes_of(resumed.adapter_dir) == bytes_of(unbroken.adapter_dir)


def interrupted_attempt(trainer: Trainer, make_spec: MakeSpec) -> Path:
    """Folder of an attempt stopped after step 9 with checkpoints of the last two steps."""
    spec = make_spec(attempt=50)
    interrupt(trainer, spec, 9)
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
    trainer: Trainer, make_spec: MakeSpec, tiny: Path, tmp_path: Path
) -> None:
    folder = interrupted_attempt(trainer, make_spec)
    narrower = tmp_path / "models"
    described = shutil.copytree(tiny, narrower / "tiny") / DESCRIPTION
    before = read_description(described)
    profile = before.profile.model_copy(update={"modules": before.profile.modules[1:]})
    described.write_text(before.model_copy(update={"profile": profile}).model_dump_json())
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
        "questions.json",
        *(f"adapter-step-{step:09d}" for step in (6, 12, 18)),
    }
