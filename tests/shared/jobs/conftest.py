"""Jobs as rows: an engine on a migrated database, and a way to add jobs."""

import pytest
from sqlalchemy import text

from shared.db import make_engine, transaction
from shared.db.tables import FineTuningJob, StoredFile, Tenant
from shared.ids import new_id
from shared.jobs.state import State


@pytest.fixture
def engine(database):
    engine = make_engine(database.system_url)
    yield engine
    engine.dispose()


@pytest.fixture
def waiting_for_locks(engine):
    def count():
        query = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database()"
        )
        with transaction(engine) as session:
            return session.execute(text(query)).scalar_one()

    return count


@pytest.fixture
def add_tenant(engine):
    def add():
        tenant = Tenant(id=new_id("org-"), name=new_id("会社-"))
        with transaction(engine) as session:
            session.add(tenant)
        return tenant.id

    return add


@pytest.fixture
def add_job(engine, add_tenant):
    def add(tenant=None, **columns):
        tenant, job_id = tenant or add_tenant(), new_id("ftjob-")
        file = StoredFile(
            id=new_id("file-"),
            tenant_id=tenant,
            filename="質問.jsonl",
            purpose="fine-tune",
            bytes=1,
            sha256="0" * 64,
            status="processed",
            report={},
        )
        with transaction(engine) as session:
            session.add(file)
            session.flush()
            values = {
                "id": job_id,
                "tenant_id": tenant,
                "base_model": "smollm2-135m-instruct",
                "training_file_id": file.id,
                "seed": 1,
                "hyperparameters": {},
                "state": State.QUEUED,
            }
            session.add(FineTuningJob(**values | columns))
        return job_id

    return add


@pytest.fixture
def job_row(engine):
    def read(job_id):
        with transaction(engine) as session:
            return session.get_one(FineTuningJob, job_id)

    return read
