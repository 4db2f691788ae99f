"""Registrations of stand-ins for inference processes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine, delete, update
from sqlalchemy.exc import SQLAlchemyError

from shared.catalog import BaseModelEntry, load_catalog
from shared.clock import now
from shared.db import transaction
from shared.replicas.models import InferenceReplica
from shared.replicas.registry import Serves, beat, register, urls

BASE = "smollm2-135m-instruct"
BEAT_SECONDS = 0.5


def serves(url: str, entry: BaseModelEntry | None = None, **changes: object) -> Serves:
    """Return what a process at ``url`` says that serves ``entry`` as it is described."""
    entry = entry or load_catalog().get(BASE)
    said = {
        "url": url,
        "base_model": entry.name,
        "base_sha256": entry.base_sha256,
        "profile_sha256": entry.profile.sha256(),
        "places": entry.serving.max_loras,
        "slots": 8,
    }
    return Serves(**said | changes)  # type: ignore[arg-type]


def add_replica(
    engine: Engine, url: str, entry: BaseModelEntry | None = None, **changes: object
) -> str:
    """Register a process that answers, and goes on to without a sign of life; return its id."""
    with transaction(engine) as session:
        replica_id = register(session, serves(url, entry, **changes), ready=True)
        far = now().replace(year=now().year + 1)
        session.execute(
            update(InferenceReplica).where(InferenceReplica.id == replica_id).values(beat_at=far)
        )
    return replica_id


def remove_replica(engine: Engine, replica_id: str) -> None:
    """End a registration."""
    with transaction(engine) as session:
        session.execute(delete(InferenceReplica).where(InferenceReplica.id == replica_id))


@contextmanager
def registered(engine: Engine, url: str, entry: BaseModelEntry, **said: object) -> Iterator[None]:
    """Keep a process registered that answers, unless it is already."""
    with transaction(engine) as session:
        known = url in urls(session)
    if known:
        yield
        return
    replica_id = add_replica(engine, url, entry, **said)
    try:
        yield
    finally:
        remove_replica(engine, replica_id)


class Beating:
    """A registered process that gives signs of life until it is closed."""

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self.id = add_replica(engine, url)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Fall silent."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            with suppress(SQLAlchemyError), transaction(self._engine) as session:
                beat(session, self.id, ready=True)
