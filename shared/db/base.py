"""Declarative base, common column types, and the sessions through which rows are reached.

Three database roles: ``tailor_owner`` runs migrations; ``tailor_api`` sees the rows of the one
tenant named by ``app.tenant`` in the transaction (row-level policies; an empty setting sees
nobody's); ``tailor_system`` sees all rows and serves key look-up, admin, worker and scheduler.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import DateTime, Engine, MetaData, String, create_engine, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

Id = Annotated[str, mapped_column(String(48), primary_key=True)]
Timestamp = Annotated[datetime, mapped_column(DateTime(timezone=True))]
CreatedAt = Annotated[
    datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
]


class Row(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSONB, list[Any]: JSONB}  # noqa: RUF012  SQLAlchemy's own hook


def make_engine(url: str, pool_size: int = 5) -> Engine:
    """Build an engine whose connections are checked before use, so a restarted PostgreSQL heals."""
    return create_engine(url, pool_size=pool_size, pool_pre_ping=True, pool_timeout=10)


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """Run one transaction; commit on leaving, roll back on an exception."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def tenant_transaction(engine: Engine, tenant_id: str) -> Iterator[Session]:
    """Run one transaction that sees only ``tenant_id``'s rows (the engine is tailor_api's)."""
    with transaction(engine) as session:
        session.execute(text("SELECT set_config('app.tenant', :id, true)"), {"id": tenant_id})
        yield session
