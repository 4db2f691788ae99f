"""Who serves what, as one process last read it: gateway, worker and comparer ask this."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.catalog import Catalog
from shared.clock import Clock
from shared.db import transaction
from shared.replicas.registry import Served, served
from shared.replicas.routing import Router

FRESH_SECONDS = 1.0
NOBODY = Served((), ())


class NobodyServes(Exception):
    """No inference process is registered for a base model."""


class Directory:
    """The registrations, read anew when they are older than a second; for any thread."""

    def __init__(self, engine: Engine, catalog: Catalog, clock: Clock = time.monotonic) -> None:
        self._engine = engine
        self._catalog = catalog
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Mapping[str, Served] = {}
        self._read_at = float("-inf")
        self._routers: dict[str, Router] = {}

    def served(self) -> Mapping[str, Served]:
        """Return the processes by base model; raises SQLAlchemy's errors."""
        with self._lock:
            if self._clock() - self._read_at >= FRESH_SECONDS:
                with transaction(self._engine) as session:
                    self._found = served(session, self._catalog)
                self._read_at = self._clock()
            return self._found

    def bases(self) -> list[str]:
        """Return the names of the base models that are served."""
        return list(self.served())

    def of(self, base_model: str) -> Served:
        """Return the processes of one base model."""
        return self.served().get(base_model, NOBODY)

    def last_known(self, base_model: str) -> Served:
        """Return the same as it was last read: for who may not wait for the database."""
        return self._found.get(base_model, NOBODY)

    @contextmanager
    def turn(self, base_model: str, adapter: str | None) -> Iterator[str]:
        """Yield the address of who is to be asked now, for as long as it is asked.

        ``adapter``: None for the base model itself. Whoever leaves by an exception was not
        answered, and the next turn is another's. While the database is away those that were last
        known are asked. Raises NobodyServes.
        """
        try:
            known = self.of(base_model)
        except SQLAlchemyError:
            known = self.last_known(base_model)
        router, now = self.router(base_model), self._clock()
        for replica in (*router.order(adapter, known.answering, now), *known.silent):
            router.began(replica.id, adapter, now)
            try:
                yield replica.url
            except Exception:
                router.failed(replica.id, self._clock())
                raise
            finally:
                router.ended(replica.id, adapter, self._clock())
            return
        raise NobodyServes(base_model)

    def router(self, base_model: str) -> Router:
        """Return what decides for this process which of them is asked."""
        with self._lock:
            return self._routers.setdefault(base_model, Router())
