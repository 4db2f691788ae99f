"""Declarative base, common column types, and the sessions through which rows are reached.

Four database roles: ``tailor_owner`` runs migrations; ``tailor_api`` sees the rows of the one
tenant named by ``app.tenant`` in the transaction (row-level policies; an empty setting sees
nobody's); ``tailor_system`` sees all rows and serves key look-up, admin, worker and scheduler;
``tailor_inference`` registers inference processes and sees which adapters are deleted, no more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from math import ceil
from typing import Annotated, Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import DateTime, Engine, MetaData, String, create_engine, event, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

ANSWER_SECONDS = 15.0
"""Nobody waits longer for one answer of the database, unless its settings say so."""
READ_ONLY = "25006"
"""SQLSTATE of a write on a standby: the old primary after a failover."""
V = TypeVar("V")

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


def make_engine(url: str, pool_size: int = 5, answer_seconds: float = ANSWER_SECONDS) -> Engine:
    """Build an engine whose every wait for the database has an end.

    Connections are checked before use, so a restarted PostgreSQL heals. A statement, commit or
    connection that takes longer than ``answer_seconds`` raises OperationalError, also where the
    server is stopped or the network swallows everything; its connection is closed.
    """
    engine = create_engine(
        url,
        pool_size=pool_size,
        pool_pre_ping=True,
        pool_timeout=10,
        # An error's text is logged, and may not hold what was to be written.
        hide_parameters=True,
        connect_args={"connect_timeout": ceil(answer_seconds)}
        | ({} if "options" in make_url(url).query else _server_limit(answer_seconds)),
    )

    @event.listens_for(engine, "do_connect")
    def connect(
        _dialect: Any, _record: Any, arguments: list[Any], named: dict[str, Any]
    ) -> "_Impatient":
        connection = _Impatient.connect(*arguments, **named)
        connection.answer_seconds = answer_seconds
        return connection

    @event.listens_for(engine, "handle_error")
    def leave_a_standby(context: ExceptionContext) -> None:
        # The pool would hand out its connections for ever; a new one finds the new primary.
        if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
            context.is_disconnect = True

    return engine


def _server_limit(answer_seconds: float) -> dict[str, str]:
    # The server, too, shall give up what nobody waits for, with its locks.
    return {"options": f"-c statement_timeout={ceil(answer_seconds * 1000)}"}


class _Impatient(psycopg.Connection[Any]):
    """A connection that closes itself when an answer takes too long.

    PostgreSQL's own ``statement_timeout`` needs a server that still runs.
    """

    answer_seconds = ANSWER_SECONDS
    GRACE_SECONDS = 1.0
    """The server's own limit comes first where it works: it leaves the connection usable."""

    def wait(self, gen: PQGen[V], interval: float = 0.1, timeout: float | None = None) -> V:
        try:
            return super().wait(gen, interval, timeout or self.answer_seconds + self.GRACE_SECONDS)
        except psycopg.errors._WaitTimeout:
            self.close()
            raise psycopg.OperationalError(
                f"the database did not answer within {self.answer_seconds:g} s"
            ) from None


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
