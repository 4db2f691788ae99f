"""Who serves what, as one process last read it: gateway, worker and comparer ask this."""

import threading
import time
from collections.abc import Mapping

from sqlalchemy import Engine

from shared.catalog import Catalog
from shared.clock import Clock
from shared.db import transaction
from shared.replicas.registry import Served, served
from shared.replicas.routing import Router

FRESH_SECONDS = 1.0
NOBODY = Served((), ())


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

    def router(self, base_model: str) -> Router:
        """Return what decides for this process which of them is asked."""
        with self._lock:
            return self._routers.setdefault(base_model, Router())
