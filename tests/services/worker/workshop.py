"""Database, broker, store and an inference stand-in, with real workers and schedulers on them."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import redis
from sqlalchemy import select

from deploy.local import valkey as local_valkey
from shared.adapters.models import Adapter
from shared.catalog import load_catalog
from shared.db import make_engine, transaction
from shared.db.tables import FineTuningJob, JobEvent, StoredFile, Tenant
from shared.ids import new_id
from shared.jobs.hyperparameters import Requested, resolve
from shared.jobs.state import TERMINAL, State
from shared.jobs.transitions import move
from shared.storage import LocalStore
from shared.task_queue import make_celery, ring, with_short_timeouts
from tests.conftest import REPOSITORY, wait_until
from tests.replicas import Beating
from tests.services.worker.inference_server import SECRET
from tests.timings import divided_timings

BASE = "smollm2-135m-instruct"
FASTER = 5
"""Divisor of every clock; at 10 a scan of 1 s on a busy machine would begin the window anew."""
CONFIG = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
}


class Workshop:
    """What one test works with; ``close`` ends every process that it started."""

    def __init__(self, folder: Path, database_url, broker_url, inference) -> None:
        self.folder = folder
        self.database_url = database_url
        self.broker_url = broker_url
        self.inference = inference
        self.faster = FASTER
        self.store = LocalStore(folder / "store")
        self.engine = make_engine(database_url)
        self.replica = Beating(self.engine, inference.url)
        self.app = with_short_timeouts(make_celery(broker_url))
        self.processes: list[subprocess.Popen[bytes]] = []
        base = folder / "models" / BASE
        base.mkdir(parents=True)
        (base / "config.json").write_text(json.dumps(CONFIG))

    def environment(self, **overrides) -> dict[str, str]:
        return (
            {name: value for name, value in os.environ.items() if "TAILOR" not in name}
            | divided_timings(self.faster)
            | {
                "PYTHONPATH": str(REPOSITORY),
                "TAILOR_SYSTEM_DATABASE_URL": self.database_url,
                "TAILOR_BROKER_URL": self.broker_url,
                "TAILOR_STORE_DIR": str(self.store.root),
                "TAILOR_MODELS_DIR": str(self.folder / "models"),
                "TAILOR_INFERENCE_SECRET": SECRET,
                "TAILOR_TRAINER_THREADS": "1",
                "TAILOR_ABORT_GRACE_SECONDS": str(2 / self.faster),
                "TAILOR_STOP_GRACE_SECONDS": str(45 / self.faster),
            }
            | overrides
        )

    def start(self, module: str, **overrides) -> subprocess.Popen[bytes]:
        """Start a process; its log is ``log-<n>`` in the folder."""
        with (self.folder / f"log-{len(self.processes)}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=REPOSITORY,
                env=self.environment(**overrides),
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def start_worker(self, **overrides) -> subprocess.Popen[bytes]:
        return self.start("tests.services.worker.scripted_worker", **overrides)

    def start_scheduler(self, **overrides) -> subprocess.Popen[bytes]:
        return self.start("services.scheduler", **overrides)

    def log(self, process: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"log-{self.processes.index(process)}").read_text()

    def close(self) -> None:
        for process in self.processes:
            kill_tree(process.pid)
            process.wait(10)
        self.replica.close()
        self.engine.dispose()
        self.app.close()

    def add_tenant(self, name="会社") -> str:
        tenant = Tenant(id=new_id("org-"), name=f"{name}-{new_id('')}")
        with transaction(self.engine) as session:
            session.add(tenant)
        return tenant.id

    def add_job(self, *, tenant=None, state=State.QUEUED, script=None, **columns) -> str:
        """Insert a job with its file; ``script`` directs its trainer."""
        tenant = tenant or self.add_tenant()
        file_id, job_id = new_id("file-"), new_id("ftjob-")
        entry = load_catalog().get(BASE)
        folder = self.store.upload(file_id)
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_text('{"line": 1, "messages": []}\n')
        (folder / "script.json").write_text(json.dumps({"steps": 10} | (script or {})))
        with transaction(self.engine) as session:
            session.add(
                StoredFile(
                    id=file_id,
                    tenant_id=tenant,
                    filename="質問.jsonl",
                    purpose="fine-tune",
                    bytes=1,
                    sha256="0" * 64,
                    status="processed",
                    report={},
                )
            )
            session.flush()
            session.add(
                FineTuningJob(
                    **{
                        "id": job_id,
                        "tenant_id": tenant,
                        "base_model": BASE,
                        "training_file_id": file_id,
                        "seed": 7,
                        "hyperparameters": resolve(Requested(), 10, entry).model_dump(),
                        "state": state,
                    }
                    | columns
                )
            )
        return job_id

    def ring(self, times=1) -> None:
        for _ in range(times):
            assert ring(self.app)

    def job(self, job_id) -> FineTuningJob:
        with transaction(self.engine) as session:
            return session.get_one(FineTuningJob, job_id)

    def states(self, job_id) -> list[str]:
        """The states the job entered, in order."""
        return [event.state for event in self.events(job_id) if event.state]

    def events(self, job_id) -> list[JobEvent]:
        with transaction(self.engine) as session:
            rows = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
            return list(session.scalars(rows))

    def adapters(self, job_id) -> list[Adapter]:
        with transaction(self.engine) as session:
            return list(session.scalars(select(Adapter).where(Adapter.job_id == job_id)))

    def examples(self, job_id) -> dict[str, Any] | None:
        with transaction(self.engine) as session:
            return session.get_one(FineTuningJob, job_id).examples

    def request_cancel(self, job_id) -> None:
        """What the API's cancel route does to a job that a worker holds."""
        with transaction(self.engine) as session:
            move(session, job_id, State.CANCELLING, "Cancel requested")

    def resume(self, job_id) -> None:
        """What the API's resume route does to a paused job."""
        with transaction(self.engine) as session:
            move(
                session, job_id, State.QUEUED, "The job goes on", sources=frozenset({State.PAUSED})
            )
        self.ring()

    def wait_for_state(self, job_id, *states, seconds=30) -> FineTuningJob:
        wait_until(
            lambda: self.job(job_id).state in states, f"{job_id} in {states}", seconds=seconds
        )
        return self.job(job_id)

    def wait_for_end(self, job_id, seconds=45) -> FineTuningJob:
        return self.wait_for_state(job_id, *TERMINAL, seconds=seconds)

    def wait_for_step(self, job_id, step, seconds=30) -> None:
        wait_until(
            lambda: ((self.job(job_id).progress or {}).get("step", 0)) >= step,
            f"{job_id} at step {step}",
            seconds=seconds,
        )


def descendants(pid) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def trainer_of(worker: subprocess.Popen[bytes]) -> psutil.Process:
    """The trainer process of a worker (the celery child's child)."""
    return next(p for p in descendants(worker.pid) if "scripted_trainer" in " ".join(p.cmdline()))


def kill_tree(pid) -> None:
    for process in [*descendants(pid), pid]:
        number = process if isinstance(process, int) else process.pid
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def assert_ended_once(workshop, job_id):
    """Exactly one success and one final adapter, whatever the number of attempts."""
    job = workshop.wait_for_end(job_id)
    assert job.state == State.SUCCEEDED, job.error
    assert workshop.states(job_id).count("succeeded") == 1
    assert [row.kind for row in workshop.adapters(job_id)].count("final") == 1
    return job


def rung_job(workshop, **columns):
    job_id = workshop.add_job(**columns)
    workshop.ring()
    return job_id


def start_valkey(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start an empty Valkey in ``folder`` and wait until it answers; return it and its URL."""
    process = subprocess.Popen(
        local_valkey.command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = local_valkey.url(folder)
    with redis.Redis(unix_socket_path=url.partition("://")[2]) as client:
        wait_until(client.ping, "Valkey answers", (redis.ConnectionError,))
    return process, url
