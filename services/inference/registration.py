"""This process's registration: kept alive from a thread of its own, and asked before every load.

What an engine may hold is known by who is registered: files of a deleted adapter go when every
registered process has let go. One that was given up on, because it was silent for too long, may
hold adapters whose files have gone meanwhile; so its engine is ended and started anew.
"""

import logging
import threading

from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from services.inference.settings import InferenceSettings
from shared.catalog import BaseModelEntry
from shared.db import make_engine, transaction
from shared.replicas.registry import Serves, beat, may_load, register
from shared.telemetry import log_event

DATABASE_SECONDS = 5.0
"""Longest wait for one answer of the database."""

log = logging.getLogger(__name__)


def serves(settings: InferenceSettings, entry: BaseModelEntry) -> Serves:
    """Say what this process serves, of weights that were found to be the described ones."""
    return Serves(
        url=settings.own_url,
        base_model=entry.name,
        base_sha256=entry.base_sha256,
        profile_sha256=entry.profile.sha256(),
        places=entry.serving.max_loras,
        slots=settings.inference_max_num_seqs,
    )


class Registration:
    """The row of one inference process, from ``start`` to ``stop``."""

    def __init__(self, database_url: SecretStr | None, serves: Serves, beat_seconds: float) -> None:
        """``database_url``: None where the process is to be known to nobody."""
        url = database_url.get_secret_value() if database_url else None
        self._engine = make_engine(url, 1, DATABASE_SECONDS) if url else None
        self._serves = serves
        self._beat_seconds = beat_seconds
        self._id: str | None = None
        self._ready = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._reached = True
        self.lost = threading.Event()
        """The registration is gone: whatever the engine holds may have been erased."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Register, and give signs of life from now on; returns at once."""
        if self._engine is not None:
            self._thread = threading.Thread(
                target=self._run, args=(self._engine,), name="registration", daemon=True
            )
            self._thread.start()

    def tell(self, *, ready: bool) -> None:
        """Say from now on, beginning at once, that the engine answers or does not."""
        if ready is not self._ready:
            self._ready = ready
            self._wake.set()

    def begin_anew(self) -> None:
        """Register again; only when no engine runs that the last registration was for."""
        self._id = None
        self.lost.clear()
        self._wake.set()

    def stop(self) -> None:
        """Give no further sign of life: the next start takes the registration over, or it ends."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2 * DATABASE_SECONDS)

    def _run(self, engine: Engine) -> None:
        while not self._stop.is_set():
            if not self.lost.is_set():
                try:
                    self._give_sign(engine)
                    self._reached = True
                except SQLAlchemyError as error:
                    self._note(error)
            self._wake.wait(self._beat_seconds)
            self._wake.clear()
        engine.dispose()

    def _give_sign(self, engine: Engine) -> None:
        with transaction(engine) as session:
            if self._id is None:
                self._id = register(session, self._serves, ready=self._ready)
                log.info("registered", extra=log_event("replica_registered", url=self._serves.url))
            elif not beat(session, self._id, ready=self._ready):
                self.lost.set()
                log.error("given up on", extra=log_event("replica_given_up", replica_id=self._id))

    def _note(self, error: SQLAlchemyError) -> None:
        if self._reached:
            data = {"reason": type(error).__name__}
            log.warning("database away", extra=log_event("database_away", **data))
        self._reached = False


class LoadPermission:
    """Asks, before an adapter is loaded, whether this process may."""

    def __init__(self, database_url: SecretStr, own_url: str) -> None:
        self._engine = make_engine(database_url.get_secret_value(), 1, DATABASE_SECONDS)
        self._own_url = own_url

    def __call__(self, adapter_id: str) -> bool:
        """Return the answer; raises NotRegistered, and SQLAlchemy's errors."""
        with transaction(self._engine) as session:
            return may_load(session, self._own_url, adapter_id)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()
