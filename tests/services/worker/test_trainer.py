"""The handle on the trainer process, with a real process behind it."""

import os
import subprocess
import sys
from queue import SimpleQueue

import pytest

from services.worker.__main__ import trainer_environment
from services.worker.spec import (
    DoneMessage,
    StartedMessage,
    StoppedMessage,
    TrainerMessage,
    TrainSpec,
)
from services.worker.trainer import Exited, Trainer, oom_kills
from shared.jobs.hyperparameters import Hyperparameters
from shared.telemetry import JsonFormatter
from tests.conftest import REPOSITORY, wait_until
from tests.services.worker.scripted_worker import SCRIPTED

Said = SimpleQueue[TrainerMessage | Exited]
pytestmark = pytest.mark.slow
NUMBERS = Hyperparameters(
    n_epochs=1,
    batch_size=1,
    learning_rate_multiplier=1,
    learning_rate=1e-3,
    rank=16,
    alpha=32,
    early_stopping_patience=2,
)


@pytest.fixture
def make_trainer():
    trainers = []

    def make(**options):
        environment = trainer_environment(os.environ) | {"PYTHONPATH": str(REPOSITORY)}
        trainer = Trainer(SCRIPTED, environment, **{"jobs_per_process": 9} | options)
        trainers.append(trainer)
        return trainer

    yield make
    for trainer in trainers:
        trainer.kill()


@pytest.fixture
def make_spec(tmp_path):
    def make(script='{"steps": 3}', base_model="a"):
        (tmp_path / "script.json").write_text(script)
        attempt_dir = tmp_path / str(len(list(tmp_path.iterdir())))
        attempt_dir.mkdir()
        return TrainSpec(
            job_id="ftjob-1",
            attempt=1,
            base_model=base_model,
            base_dir=tmp_path,
            base_sha256="0",
            train_rows=tmp_path / "rows.jsonl",
            validation_rows=None,
            attempt_dir=attempt_dir,
            resume_from=(),
            hyperparameters=NUMBERS,
            seed=1,
            checkpoint_seconds=1,
            threads=1,
        )

    return make


def run(trainer, spec):
    """Run a job; return what it said last, and the process it ran in."""
    said = Said()
    trainer.train(spec, said.put)
    while not isinstance(last := said.get(timeout=20), DoneMessage | Exited):
        pass
    pid = trainer._process.pid
    trainer.finish_job()
    return last, pid


def test_it_stays_warm_between_jobs_and_changes_with_base_model_count_and_error(
    make_trainer, make_spec
):
    trainer = make_trainer(jobs_per_process=2)
    first, second, third, fourth = (
        run(trainer, make_spec(base_model=base))[1] for base in ("a", "a", "a", "b")
    )
    assert first == second
    assert len({second, third, fourth}) == 3


def test_it_comes_back_after_its_process_died_between_jobs(make_trainer, make_spec):
    trainer = make_trainer()
    _, pid = run(trainer, make_spec())
    os.killpg(pid, 9)
    wait_until(lambda: trainer._process.poll() is not None, "the process is gone")
    last, new = run(trainer, make_spec())
    assert isinstance(last, DoneMessage)
    assert new != pid


def test_a_kill_by_the_kernel_for_memory_is_told_from_another(make_trainer, make_spec):
    script = '{"steps": 3, "faults": {"1": {"at": 2, "do": "sigkill"}}}'
    for counts, oom in (([4, 4], False), ([5, 4], True)):
        trainer = make_trainer(count_oom_kills=counts.pop)
        end, _ = run(trainer, make_spec(script))
        assert end == Exited(-9, oom_killed=oom)


def test_what_is_no_message_is_logged_without_its_text(make_trainer, make_spec, caplog):
    script = '{"steps": 3, "faults": {"1": {"at": 2, "do": "nonsense"}}}'
    run(make_trainer(), make_spec(script))
    events = {record.event: JsonFormatter("worker").format(record) for record in caplog.records}
    assert "json_invalid" in events["trainer_not_understood"]
    assert "Loading weights" not in events["trainer_not_understood"]


def test_the_kernels_counter_can_be_read_here():
    assert oom_kills() >= 0


def test_a_stopped_job_leaves_the_process_ready_for_the_next(make_trainer, make_spec):
    trainer, said = make_trainer(), Said()
    trainer.train(make_spec('{"steps": 2000, "step_seconds": 0.01}'), said.put)
    while not isinstance(said.get(timeout=20), StartedMessage):
        pass
    trainer.command("abort")
    while not isinstance(said.get(timeout=20), StoppedMessage):
        pass
    pid = trainer._process.pid
    assert run(trainer, make_spec())[1] == pid


def test_a_killed_trainer_speaks_for_no_job_any_more(make_trainer, make_spec):
    trainer, old, new = make_trainer(), Said(), Said()
    trainer.train(make_spec('{"steps": 2000}'), old.put)
    old.get(timeout=20)
    trainer.kill()
    trainer.train(make_spec(), new.put)
    said: list[TrainerMessage | Exited] = []
    while not said or not isinstance(said[-1], DoneMessage):
        said.append(new.get(timeout=20))
    assert not any(isinstance(message, Exited) for message in said)


def test_a_word_to_a_trainer_that_is_being_killed_is_lost(make_trainer, make_spec):
    trainer = make_trainer()
    trainer.train(make_spec('{"steps": 2000}'), SimpleQueue().put)
    process = trainer._process
    trainer.kill()
    trainer._send(process, "{}")
    trainer.command("stop")


def test_the_trainer_gets_none_of_our_settings():
    environment = {"PATH": "/bin", "TAILOR_SYSTEM_DATABASE_URL": "secret", "HOME": "/"}
    given = trainer_environment(environment)
    assert not any(name.startswith("TAILOR_") or value == "secret" for name, value in given.items())
    assert given.items() >= {"PATH": "/bin", "HOME": "/"}.items()


def test_the_supervisors_side_imports_no_torch():
    code = (
        "import services.worker.__main__, sys;"
        "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
