"""No call to the database lasts for ever, whatever the server does."""

import os
import signal
import socket
import time
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from shared.db import make_engine, transaction

LIMIT = 0.5


@pytest.fixture
def engine(database):
    engine = make_engine(database.system_url, answer_seconds=LIMIT)
    yield engine
    engine.dispose()


def backend_of(session):
    return session.scalar(text("SELECT pg_backend_pid()"))


@contextmanager
def standing_still(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ask_a_backend_that_stands_still(engine):
    """Return the process that the pool had at hand."""
    with Session(engine) as session:
        backend = backend_of(session)
        with standing_still(backend), pytest.raises(OperationalError, match="did not answer"):
            session.execute(text("SELECT 1"))
    return backend


def test_a_server_that_stands_still_in_a_transaction_ends_the_wait_and_the_next_one_works(engine):
    began = time.monotonic()
    backend = ask_a_backend_that_stands_still(engine)
    assert time.monotonic() - began < 10 * LIMIT
    with transaction(engine) as session:
        assert backend_of(session) != backend


def test_a_commit_that_gets_no_answer_ends_too(engine):
    with (
        Session(engine) as session,
        standing_still(backend_of(session)),
        pytest.raises(OperationalError),
    ):
        session.commit()


def test_a_statement_that_waits_for_a_lock_is_given_up_by_the_server_as_well(engine, database):
    patient = make_engine(database.system_url)
    lock = text("SELECT pg_advisory_xact_lock(1)")
    with transaction(patient) as holder:
        holder.execute(lock)
        with pytest.raises(OperationalError), transaction(engine) as session:
            session.execute(lock)
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        assert holder.scalar(text(waiting)) == 0
    patient.dispose()


def test_a_server_that_accepts_and_says_nothing_ends_the_connecting():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        engine = make_engine(f"postgresql+psycopg://u:p@127.0.0.1:{port}/d", answer_seconds=LIMIT)
        with pytest.raises(OperationalError), transaction(engine) as session:
            session.execute(text("SELECT 1"))
