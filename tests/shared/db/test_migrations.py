"""The schema comes from nothing, matches the tables, and the roles see what they may."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import ProgrammingError

from shared.db import make_engine, tenant_transaction, transaction
from shared.db.tables import ApiKey, Row, StoredFile, Tenant
from shared.ids import new_id


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
def two_tenants(system):
    with transaction(system) as session:
        tenants = [Tenant(id=new_id("org-"), name=new_id("会社-")) for _ in range(2)]
        session.add_all(tenants)
        session.flush()
        session.add_all(
            StoredFile(
                id=new_id("file-"),
                tenant_id=tenant.id,
                filename="質問.jsonl",
                purpose="fine-tune",
                bytes=1,
                sha256="0" * 64,
                status="processed",
                report={},
            )
            for tenant in tenants
        )
    return [tenant.id for tenant in tenants]


def test_autogenerate_finds_no_difference_after_upgrade(database):
    engine = create_engine(database.owner_url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Row.metadata)
    engine.dispose()
    assert differences == []


def test_api_role_sees_only_the_tenant_of_its_transaction(api, two_tenants):
    for tenant_id in two_tenants:
        with tenant_transaction(api, tenant_id) as session:
            assert {row.tenant_id for row in session.scalars(select(StoredFile))} == {tenant_id}


def test_api_role_without_a_tenant_sees_nobody_also_after_a_tenants_transaction(api, two_tenants):
    with tenant_transaction(api, two_tenants[0]) as session:
        assert session.scalars(select(StoredFile)).all()
    with transaction(api) as session:
        assert session.scalars(select(StoredFile)).all() == []
        assert session.scalars(select(Tenant)).all() == []


def test_api_role_cannot_write_a_row_of_another_tenant(api, two_tenants):
    mine, other = two_tenants
    with (
        pytest.raises(ProgrammingError, match="row-level security"),
        tenant_transaction(api, mine) as session,
    ):
        session.execute(
            text(
                "INSERT INTO files"
                " (id, tenant_id, filename, purpose, bytes, sha256, status, report)"
                " VALUES (:id, :other, 'x', 'fine-tune', 1, 'x', 'processed', '{}')"
            ),
            {"id": new_id("file-"), "other": other},
        )


def test_api_role_cannot_read_keys(api):
    with pytest.raises(ProgrammingError, match="permission denied"), transaction(api) as session:
        session.scalars(select(ApiKey)).all()


@pytest.mark.parametrize("role", ["api_url", "system_url", "owner_url"])
def test_no_role_bypasses_the_policies(database, role):
    engine = create_engine(getattr(database, role))
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
        ).one()
    engine.dispose()
    assert tuple(row) == (False, False)
