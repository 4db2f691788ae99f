"""An upgrade from the schema of any release ends at the tables of today and keeps the rows."""

from pathlib import Path
from secrets import token_hex

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from shared.db import migrate
from shared.db.tables import Row

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"
RELEASES = sorted(path.name[:4] for path in VERSIONS.glob("[0-9]*.py"))


@pytest.fixture
def empty(postgres):
    """An engine of the owner's on a database without tables."""
    name = f"test_{token_hex(6)}"
    postgres.execute(f"CREATE DATABASE {name} OWNER tailor_owner")
    engine = create_engine(postgres.urls(name).owner_url)
    yield engine
    engine.dispose()
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("release", RELEASES)
def test_every_earlier_schema_is_upgraded_to_todays_and_keeps_its_rows(empty, release):
    with empty.begin() as connection:
        command.upgrade(migrate.alembic_config(connection), release)
    with empty.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('org-1', '会社')"))
    migrate.upgrade(empty)
    with empty.begin() as connection:
        assert connection.scalar(text("SELECT name FROM tenants WHERE id = 'org-1'")) == "会社"
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []
