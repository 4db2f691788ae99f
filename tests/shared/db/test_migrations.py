"""The schema comes from nothing, matches the tables, and the roles see what they may."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, func, select, text, update
from sqlalchemy.exc import ProgrammingError

from shared.db import make_engine, tenant_transaction, transaction
from shared.db.tables import (
    Adapter,
    ApiKey,
    Comparison,
    ComparisonAnswer,
    ComparisonEvent,
    ComparisonQuestion,
    FineTuningJob,
    InferenceReplica,
    JobEvent,
    Row,
    StoredFile,
    Tenant,
)
from shared.ids import new_id
from shared.jobs.state import State


@pytest.fixture
def system(database):
    engine = make_engine(database.system_url)
    yield engine
    engine.dispose()


@pytest.fixture
def api(database):
    engine = make_engine(database.api_url)
    yield engine
    engine.dispose()


@pytest.fixture
def inference(database):
    engine = make_engine(database.inference_url)
    yield engine
    engine.dispose()


OWNER = {
    Tenant: Tenant.id,
    StoredFile: StoredFile.tenant_id,
    FineTuningJob: FineTuningJob.tenant_id,
    JobEvent: JobEvent.tenant_id,
    Adapter: Adapter.tenant_id,
    Comparison: Comparison.tenant_id,
    ComparisonQuestion: ComparisonQuestion.tenant_id,
    ComparisonAnswer: ComparisonAnswer.tenant_id,
    ComparisonEvent: ComparisonEvent.tenant_id,
}
"""Every table that tailor_api may read, and the column that says whose a row is."""


def rows_of(tenant_id):
    """Build a row of each table, in the order of their references."""
    file = StoredFile(
        id=new_id("file-"),
        tenant_id=tenant_id,
        filename="質問.jsonl",
        purpose="fine-tune",
        bytes=1,
        sha256="0" * 64,
        status="processed",
        report={},
    )
    job = FineTuningJob(
        id=new_id("ftjob-"),
        tenant_id=tenant_id,
        base_model="b",
        training_file_id=file.id,
        seed=1,
        hyperparameters={},
        state=State.QUEUED,
    )
    event = JobEvent(
        id=new_id("ftevent-"),
        tenant_id=tenant_id,
        job_id=job.id,
        attempt=0,
        level="info",
        type="message",
        message="x",
    )
    adapter = Adapter(
        id=new_id("ad_"),
        tenant_id=tenant_id,
        job_id=job.id,
        kind="final",
        model=new_id("ft:"),
        step=1,
        base_model="b",
        base_sha256="0" * 64,
        metrics={},
    )
    tenant = Tenant(id=tenant_id, name=new_id("会社-"))
    return [tenant, file, job, event, adapter, *comparison_of(tenant_id, file, job)]


def comparison_of(tenant_id, file, job):
    comparison = Comparison(
        id=new_id("cmp-"),
        tenant_id=tenant_id,
        base_model="b",
        job_id=job.id,
        training_file_id=file.id,
        document_file_ids=[],
        arms=["zero_shot"],
        questions=200,
        seed=1,
        retriever="hybrid",
        state="queued",
    )
    question = ComparisonQuestion(
        comparison_id=comparison.id,
        line=1,
        tenant_id=tenant_id,
        question="質問",
        expected="回答",
        cluster=0,
    )
    answer = ComparisonAnswer(
        comparison_id=comparison.id,
        arm="zero_shot",
        line=1,
        tenant_id=tenant_id,
        answer="回答",
        cut=False,
        prompt_tokens=1,
        completion_tokens=1,
    )
    event = ComparisonEvent(
        id=new_id("cmpevent-"),
        tenant_id=tenant_id,
        comparison_id=comparison.id,
        attempt=0,
        level="info",
        type="message",
        message="x",
    )
    return [comparison, question, answer, event]


@pytest.fixture
def two_tenants(system):
    tenants = [new_id("org-") for _ in range(2)]
    with transaction(system) as session:
        for tenant_id in tenants:
            for row in rows_of(tenant_id):
                session.add(row)
                session.flush()
    return tenants


def test_autogenerate_finds_no_difference_after_upgrade(database):
    engine = create_engine(database.owner_url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Row.metadata)
    engine.dispose()
    assert differences == []


def test_every_table_that_the_api_may_read_is_tried_here():
    closed = {ApiKey.__table__, InferenceReplica.__table__}
    assert {table.__table__ for table in OWNER} | closed == set(Row.metadata.sorted_tables)


@pytest.mark.parametrize("table", OWNER)
def test_api_role_sees_only_the_tenant_of_its_transaction(api, two_tenants, table):
    for tenant_id in two_tenants:
        with tenant_transaction(api, tenant_id) as session:
            assert session.scalars(select(OWNER[table])).all() == [tenant_id]


@pytest.mark.parametrize("table", OWNER)
def test_api_role_without_a_tenant_sees_nobody_also_after_a_tenants_transaction(
    api, two_tenants, table
):
    with tenant_transaction(api, two_tenants[0]) as session:
        assert session.scalars(select(OWNER[table])).all()
    with transaction(api) as session:
        assert session.scalars(select(OWNER[table])).all() == []


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        (StoredFile, {"deleted_at": func.now()}),
        (FineTuningJob, {"suffix": "x"}),
        (Adapter, {"deleted_at": func.now()}),
        (Comparison, {"deleted_at": func.now()}),
    ],
)
def test_api_role_changes_only_rows_of_its_tenant(api, two_tenants, table, changes):
    with tenant_transaction(api, two_tenants[0]) as session:
        assert session.connection().execute(update(table).values(changes)).rowcount == 1


def test_api_role_cannot_give_a_row_to_another_tenant(api, two_tenants):
    mine, other = two_tenants
    with (
        pytest.raises(ProgrammingError, match="row-level security"),
        tenant_transaction(api, mine) as session,
    ):
        session.execute(update(FineTuningJob).values(tenant_id=other))


@pytest.mark.parametrize(
    ("table", "refusal"),
    [
        (Tenant, "permission denied"),
        (StoredFile, "row-level security"),
        (FineTuningJob, "row-level security"),
        (JobEvent, "row-level security"),
        (Adapter, "permission denied"),
        (Comparison, "row-level security"),
        (ComparisonQuestion, "permission denied"),
        (ComparisonAnswer, "permission denied"),
        (ComparisonEvent, "row-level security"),
    ],
)
def test_api_role_cannot_write_a_row_of_another_tenant(api, two_tenants, table, refusal):
    mine, other = two_tenants
    row = next(row for row in rows_of(other) if isinstance(row, table))
    with (
        pytest.raises(ProgrammingError, match=refusal),
        tenant_transaction(api, mine) as session,
    ):
        session.add(row)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (Tenant, "id"),
        (JobEvent, "id"),
        (ComparisonQuestion, "question"),
        (ComparisonAnswer, "answer"),
        (ComparisonEvent, "id"),
    ],
)
def test_api_role_cannot_change_what_it_only_reads_or_adds_to(api, two_tenants, table, column):
    with (
        pytest.raises(ProgrammingError, match="permission denied"),
        tenant_transaction(api, two_tenants[0]) as session,
    ):
        session.execute(update(table).values({column: "x"}))


@pytest.mark.parametrize("table", [ApiKey, InferenceReplica])
def test_api_role_cannot_read_keys_or_registrations(api, table):
    with pytest.raises(ProgrammingError, match="permission denied"), transaction(api) as session:
        session.scalars(select(table)).all()


@pytest.mark.parametrize("table", [*OWNER, ApiKey])
def test_inference_role_sees_of_all_tables_only_which_adapters_are_deleted(
    inference, two_tenants, table
):
    query = select(OWNER.get(table, ApiKey.tenant_id))
    with (
        pytest.raises(ProgrammingError, match="permission denied"),
        transaction(inference) as session,
    ):
        session.scalars(query).all()
    with transaction(inference) as session:
        assert session.scalars(select(Adapter.deleted_at)).all() == [None, None]


@pytest.mark.parametrize("role", ["api_url", "system_url", "owner_url", "inference_url"])
def test_no_role_bypasses_the_policies(database, role):
    engine = create_engine(getattr(database, role))
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
        ).one()
    engine.dispose()
    assert tuple(row) == (False, False)
