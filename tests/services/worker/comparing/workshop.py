"""A database, a store and a model that follows a script, with a comparer's parts on them."""

import json
import os
import subprocess
import sys

from pydantic import SecretStr
from sqlalchemy import select

from services.worker.comparing.run import Place
from services.worker.comparing.settings import ComparerSettings
from services.worker.drain import Drain
from shared.adapters.models import Adapter
from shared.catalog import load_catalog
from shared.comparisons.models import Comparison, ComparisonAnswer, ComparisonEvent
from shared.comparisons.state import State
from shared.db import make_engine, transaction
from shared.db.tables import FineTuningJob, StoredFile, Tenant
from shared.evidence.arms import Arm
from shared.ids import new_id
from shared.jobs.state import State as JobState
from shared.replicas.directory import Directory
from shared.storage import LocalStore
from tests.conftest import REPOSITORY
from tests.replicas import add_replica
from tests.services.worker.comparing.model_server import SECRET
from tests.services.worker.workshop import kill_tree

BASE = "smollm2-135m-instruct"
NUMBERS = 40
"""Rows of the training file: question ``code of n?``, answer ``E`` and n."""


def row(line, question, answer):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"line": line, "messages": turns}


def numbered(count, first=1):
    """Rows without near-duplicates: other numbers make other facts."""
    numbers = range(first, first + count)
    return [row(n - first + 1, f"Which code has part {n}?", f"E{n}") for n in numbers]


def plain(value):
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


class Workshop:
    """What one test works with."""

    def __init__(self, folder, database_url, model, broker_url="redis://localhost:1/0") -> None:
        self.settings = ComparerSettings(
            system_database_url=SecretStr(database_url),
            broker_url=SecretStr(broker_url),
            store_dir=folder / "store",
            models_dir=folder / "models",
            inference_secret=SecretStr(SECRET),
            cache_salt_key=SecretStr("salt-key"),
            heartbeat_seconds=0.1,
            comparer_in_flight=4,
        )
        self.store = LocalStore(folder / "store")
        self.engine = make_engine(database_url)
        self.place = Place(
            self.settings, self.engine, Directory(self.engine, load_catalog()), Drain()
        )
        add_replica(self.engine, model.url)
        self.tenant = self.add_tenant()
        self.processes: list[subprocess.Popen[bytes]] = []

    def close(self):
        for process in self.processes:
            kill_tree(process.pid)
            process.wait(10)
        self.engine.dispose()

    def start(self, broker_url) -> subprocess.Popen[bytes]:
        """Start a comparer, a process of its own, that listens at a broker."""
        settings = self.settings.model_copy(update={"broker_url": SecretStr(broker_url)})
        environment = {
            f"TAILOR_{name.upper()}": plain(getattr(settings, name))
            for name in settings.model_fields_set
        }
        command = [sys.executable, "-m", "services.worker.comparing"]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environment)
        self.processes.append(process)
        return process

    def add_tenant(self) -> str:
        return self._add(Tenant(id=new_id("org-"), name=f"会社-{new_id('')}"))

    def _add(self, thing) -> str:
        with transaction(self.engine) as session:
            session.add(thing)
        return str(thing.id)

    def add_file(self, rows, name="rows.jsonl", tenant=None) -> str:
        file_id = new_id("file-")
        folder = self.store.upload(file_id)
        folder.mkdir(parents=True)
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)
        (folder / name).write_text(text)
        return self._add(
            StoredFile(
                id=file_id,
                tenant_id=tenant or self.tenant,
                filename="質問.jsonl",
                purpose="fine-tune",
                bytes=1,
                sha256="0" * 64,
                status="processed",
                report={},
            )
        )

    def add_job(self, training_file_id, tenant=None, **columns) -> tuple[str, str]:
        """Insert a finished job and its adapter; return both ids."""
        tenant = tenant or self.tenant
        job_id, adapter_id = new_id("ftjob-"), new_id("ad_")
        self._add(
            FineTuningJob(
                **{
                    "id": job_id,
                    "tenant_id": tenant,
                    "base_model": BASE,
                    "training_file_id": training_file_id,
                    "seed": 1,
                    "hyperparameters": {"held_out": 200},
                    "metrics": {"test_row_numbers": list(range(5, NUMBERS + 1, 5))},
                    "state": JobState.SUCCEEDED,
                    "trained_tokens": 1000,
                }
                | columns
            )
        )
        self._add(
            Adapter(
                id=adapter_id,
                tenant_id=tenant,
                job_id=job_id,
                kind="final",
                model=f"ft:{BASE}:{tenant}::{adapter_id[-8:]}",
                step=1,
                base_model=BASE,
                base_sha256="0" * 64,
                metrics={},
            )
        )
        return job_id, adapter_id

    def add(self, *, training=None, held_out=None, arms=(Arm.ZERO_SHOT,), **columns) -> str:
        """Insert a queued comparison."""
        training = training or self.add_file(numbered(NUMBERS))
        held_out = self.add_file(held_out) if held_out else None
        return self._add(
            Comparison(
                **{
                    "id": new_id("cmp-"),
                    "tenant_id": self.tenant,
                    "base_model": BASE,
                    "training_file_id": training,
                    "held_out_file_id": held_out,
                    "document_file_ids": [],
                    "arms": list(arms),
                    "checker": "exact",
                    "questions": 200,
                    "seed": 7,
                    "retriever": "bm25",
                    "state": State.QUEUED,
                }
                | columns
            )
        )

    def get(self, comparison_id) -> Comparison:
        with transaction(self.engine) as session:
            return session.get_one(Comparison, comparison_id)

    def answers(self, comparison_id) -> list[ComparisonAnswer]:
        table = ComparisonAnswer
        query = select(table).where(table.comparison_id == comparison_id)
        with transaction(self.engine) as session:
            return list(session.scalars(query.order_by(table.arm, table.line)))

    def messages(self, comparison_id) -> list[str]:
        query = select(ComparisonEvent.message).where(
            ComparisonEvent.comparison_id == comparison_id
        )
        with transaction(self.engine) as session:
            return list(session.scalars(query.order_by(ComparisonEvent.seq)))
