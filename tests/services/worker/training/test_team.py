"""Several processes that train one job: its figures are those of one, and they end together."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file

from services.worker.spec import DoneMessage
from tests.services.worker.training.attempts import MakeSpec, bytes_of
from tests.services.worker.training.conftest import (
    PATIENCE_SECONDS,
    Trainer,
    TrainerProcess,
    chat,
    write_rows,
)

Start = Callable[..., TrainerProcess]


def close(figures: Any) -> Any:
    """The order of sums differs, and AdamW divides by small numbers."""
    return pytest.approx(figures, rel=1e-4, abs=1e-6)


def figures(found: BaseModel) -> dict[str, Any]:
    """What was measured, but for what was not."""
    return {name: value for name, value in found.model_dump().items() if value is not None}


def run_with(team: TrainerProcess, spec: Any) -> DoneMessage:
    team.send(spec.model_dump_json())
    done = team.until("done")
    assert isinstance(done, DoneMessage)
    return done


def others(team: TrainerProcess) -> list[int]:
    """Process ids of a team without its leader."""
    pid = team.process.pid
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether ``pid`` runs; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(seconds: float, pids: list[int]) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def test_two_processes_have_the_figures_of_one_and_the_same_bits_every_time(
    start_process: Start, trainer: Trainer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    # 3 rows of validation and of test: neither is divided evenly, and steps of 3 rows neither.
    asked = write_rows(tmp_path / "v.jsonl", [chat(f"v{i}", "はい" * (i + 1)) for i in range(3)])
    asks = {"validation_rows": asked, "batch_size": 3, "held_out": 15, "forgetting_budget": 9.0}
    alone = trainer.train(make_spec(attempt=1, **asks))
    team = start_process(processes=2)
    first = run_with(team, make_spec(attempt=2, **asks))
    again = run_with(team, make_spec(attempt=3, **asks))
    assert bytes_of(first.adapter_dir) == bytes_of(again.adapter_dir)
    assert first.history == again.history
    assert first.trained_tokens == alone.trained_tokens
    assert first.test_row_numbers == alone.test_row_numbers
    for one, other in zip(first.history, alone.history, strict=True):
        assert figures(one) == close(figures(other))
    assert first.reported
    assert alone.reported
    assert figures(first.reported) == close(figures(alone.reported))
    assert (first.base_loss, first.final_loss) == close((alone.base_loss, alone.final_loss))
    ours, theirs = (load_file(d.adapter_dir / "adapter_model.safetensors") for d in (first, alone))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)


@pytest.mark.proof
def test_a_process_without_a_row_of_a_step_takes_part_in_it(
    start_process: Start, trainer: Trainer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "few.jsonl", [chat(f"q{i}", f"a{i}") for i in range(2)])
    asks = {"train_rows": rows, "validation_rows": rows, "batch_size": 1, "n_epochs": 4}
    alone = trainer.train(make_spec(attempt=1, **asks))
    three = run_with(start_process(processes=3), make_spec(attempt=2, **asks))
    assert [step.train_loss for step in three.history] == close(
        [step.train_loss for step in alone.history]
    )


@pytest.mark.proof
def test_a_stopped_team_is_gone_and_goes_on_as_two_or_as_one(
    start_process: Start, trainer: Trainer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    whole = run_with(start_process(processes=2), make_spec(attempt=1))
    team = start_process(processes=2)
    begun = make_spec(attempt=2)
    team.send(begun.model_dump_json())
    while team.until("progress").metrics.step < 5:
        pass
    pids = others(team)
    team.send('{"command": "stop"}')
    stopped = team.until("stopped")
    assert stopped.ends
    assert stopped.step >= 5
    assert team.process.wait(PATIENCE_SECONDS) == 0
    assert gone_within(10, pids)
    kept = shutil.copytree(begun.attempt_dir, tmp_path / "kept")  # what goes on supersedes it
    two = run_with(
        start_process(processes=2), make_spec(attempt=3, resume_from=(begun.attempt_dir,))
    )
    assert two.steps_this_attempt == two.total_steps - stopped.step
    assert two.history == whole.history
    assert bytes_of(two.adapter_dir) == bytes_of(whole.adapter_dir)
    one = trainer.train(make_spec(attempt=4, resume_from=(kept,)))
    (started,) = trainer.of("started")
    assert (started.step, started.fresh_because) == (stopped.step, None)
    assert started.differs == "training processes 1 instead of 2"
    assert one.final_loss == close(whole.final_loss)


@pytest.mark.proof
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_who_loses_one_of_its_team_ends_as_that_one_did(
    start_process: Start, make_spec: MakeSpec, how: signal.Signals
) -> None:
    team = start_process(processes=3)
    team.send(make_spec(n_epochs=50).model_dump_json())
    team.until("progress")
    pids = others(team)
    assert len(pids) == 2
    os.kill(pids[1], how)
    last = team.rest()[-1]
    assert gone_within(10, pids)
    if how == signal.SIGKILL:  # what the supervisor knows the kernel's lack of memory by
        assert team.process.returncode == -signal.SIGKILL
    else:
        assert team.process.returncode == 1
        assert last.kind == "error"
        assert (last.code, last.message) == ("crash", "Training process 2 ended with status -11.")


@pytest.mark.proof
def test_a_killed_leader_takes_its_team_along(start_process: Start, make_spec: MakeSpec) -> None:
    team = start_process(processes=2)
    team.send(make_spec(n_epochs=50).model_dump_json())
    team.until("progress")
    pids = others(team)
    team.process.kill()
    assert gone_within(10, pids)


@pytest.mark.proof
def test_what_is_wrong_with_the_rows_is_said_once_and_with_its_own_code(
    start_process: Start, make_spec: MakeSpec, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "long.jsonl", [chat("長" * 400, "a", line=9)] * 12)
    team = start_process(processes=2)
    team.send(make_spec(train_rows=rows).model_dump_json())
    said = [message for message in team.rest() if message.kind == "error"]
    assert [(message.code, message.param) for message in said] == [("bad_data", "training_file")]
