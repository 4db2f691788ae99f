"""The trainer process: its protocol, and that it dies with its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch

from services.worker.spec import TrainSpec
from services.worker.training import checkpoint
from services.worker.training.loop import NonFiniteLoss
from services.worker.training.process import failure_message
from services.worker.training.warm_trainer import BadConfiguration
from shared.errors import NotFound
from tests.services.worker.training.conftest import (
    PATIENCE_SECONDS,
    ROOT,
    Trainer,
    TrainerProcess,
    chat,
    write_rows,
)

Start = Callable[..., TrainerProcess]
MakeSpec = Callable[..., TrainSpec]


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_jobs_stop_abort_and_the_end_of_stdin_through_one_process(
    start_process: Start, make_spec: MakeSpec
) -> None:
    trainer = start_process()
    trainer.until("ready")
    trainer.send(make_spec(attempt=1).model_dump_json())
    first = trainer.until("done")
    trainer.send(make_spec(attempt=2, n_epochs=50).model_dump_json())
    trainer.until("progress")
    trainer.send('{"command": "stop"}')
    stopped = trainer.until("stopped")
    assert stopped.step == checkpoint.highest_step([make_spec(attempt=2).attempt_dir]) > 0
    trainer.send(make_spec(attempt=3, n_epochs=50).model_dump_json())
    trainer.until("progress")
    trainer.send('{"command": "abort"}')
    trainer.until("stopped")
    trainer.send(make_spec(attempt=4).model_dump_json())
    assert adapter_bytes(trainer.until("done").adapter_dir) == adapter_bytes(first.adapter_dir)
    trainer.send(make_spec(attempt=5, n_epochs=50).model_dump_json())
    trainer.until("progress")
    assert trainer.process.stdin
    trainer.process.stdin.close()  # in the middle of a job
    assert trainer.process.wait(10) == 0


def test_killed_at_a_drawn_step_another_process_resumes_to_the_same_bits(
    start_process: Start, trainer: Trainer, make_spec: MakeSpec
) -> None:
    seed = time.time_ns() % 10_000
    print("seed", seed)
    step = Random(seed).randint(2, 16)
    victim = start_process()
    killed = make_spec(attempt=1)
    victim.send(killed.model_dump_json())
    while victim.until("progress").metrics.step < step:
        pass
    os.kill(victim.process.pid, signal.SIGKILL)
    victim.process.wait(PATIENCE_SECONDS)
    unbroken = trainer.train(make_spec(attempt=2))
    resumed = trainer.train(make_spec(attempt=3, resume_from=(killed.attempt_dir,)))
    assert 0 < resumed.steps_this_attempt < unbroken.total_steps
    assert resumed.questions_file.read_bytes() == unbroken.questions_file.read_bytes()
    before, after = trainer.of("first_batch")
    assert before == after
    assert resumed.history == unbroken.history
    assert adapter_bytes(resumed.adapter_dir) == adapter_bytes(unbroken.adapter_dir)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NonFiniteLoss("x"), "non_finite_loss"),
        (BadConfiguration("x"), "bad_configuration"),
        (NotFound("x"), "bad_configuration"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("x"), "out_of_memory"),
        (RuntimeError("秘密"), "crash"),
    ],
)
def test_every_failure_has_its_code(error: Exception, code: str) -> None:
    message = failure_message(error)
    assert message.code == code
    assert "秘密" not in message.message


def test_an_allocation_the_machine_cannot_make_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50)
    assert failure_message(raised.value).code == "out_of_memory"


def test_a_failed_job_is_reported_and_ends_the_process(
    start_process: Start, make_spec: MakeSpec
) -> None:
    trainer = start_process()
    trainer.send(make_spec(learning_rate=1e30).model_dump_json())
    last = trainer.rest()[-1]
    assert last.kind == "error"
    assert last.code == "non_finite_loss"
    assert trainer.process.returncode == 1


def test_bad_row_names_line_and_file_and_is_nowhere_quoted(
    start_process: Start,
    make_spec: MakeSpec,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rows = write_rows(tmp_path / "long.jsonl", [chat("秘密" * 200, "a", line=9)] * 12)
    trainer = start_process()
    trainer.send(make_spec(train_rows=rows).model_dump_json())
    last = trainer.rest()[-1]
    assert last.kind == "error"
    assert (last.code, last.param) == ("bad_data", "training_file")
    assert "Line 9" in last.message
    assert "秘密" not in last.message
    [line] = [line for line in capfd.readouterr().err.splitlines() if "training_failed" in line]
    logged = json.loads(line)
    assert (logged["code"], logged["error"]) == ("bad_data", "BadData")
    assert "encoded_rows" in logged["frames"]
    assert "Line 9" not in line


def test_a_parent_that_is_gone_already_is_noticed(start_process: Start) -> None:
    trainer = start_process(parent=1)
    assert trainer.process.wait(PATIENCE_SECONDS) == 1


def test_death_of_the_parent_ends_the_trainer(models_dir: Path) -> None:
    """stdin stays open through a pipe of this test, so only the kernel's signal can end it."""
    read_end, write_end = os.pipe()
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'services.worker.training', '--parent',"
        f" str(os.getpid()), '--models-dir', {str(models_dir)!r}], stdin={read_end})\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, pass_fds=(read_end,)
    )
    try:
        assert supervisor.stdout
        trainer = int(supervisor.stdout.readline())
        assert json.loads(supervisor.stdout.readline()) == {"kind": "ready"}
        supervisor.kill()
        supervisor.wait(10)
        supervisor.stdout.close()
        deadline = time.monotonic() + 10
        while _alive(trainer) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _alive(trainer)
    finally:
        supervisor.kill()
        os.close(read_end)
        os.close(write_end)


def _alive(pid: int) -> bool:
    """Say whether ``pid`` runs; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
