"""Removes what nobody needs: deleted or expired files and adapters, ended jobs' attempts, orphans.

Of an adapter every server lets go first: vLLM keeps the path of a name it has forgotten, and a
missing file would end its engine for everybody. Only then are files removed, then, when nothing is
left of them, the row marked. What cannot be removed is logged by its id and tried again later; the
others go on. Folders without a row are looked for rarely: that reads the whole store.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Engine,
    Select,
    String,
    and_,
    any_,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from services.scheduler.remove import OrphanScan, Stuck, entries, older_than, remove
from shared.adapters.models import Adapter
from shared.clock import Clock
from shared.db import transaction
from shared.files.models import StoredFile
from shared.ids import is_adapter_id, is_job_id
from shared.jobs.models import FineTuningJob
from shared.jobs.state import TERMINAL
from shared.replicas.registry import urls
from shared.storage import TEMPORARY, LocalStore

EVICTION_SECONDS = 30.0
"""More than twice TAILOR_INFERENCE_DRAIN_SECONDS: running answers end first, or are aborted."""


class Eviction:
    """Asks every registered inference process to let go of an adapter.

    One that registers later asks before it loads, and may not load what is deleted.
    """

    def __init__(self, engine: Engine, secret: str) -> None:
        self._engine = engine
        self._headers = {"Authorization": f"Bearer {secret}"}

    def __call__(self, adapter_id: str) -> None:
        """Return when none holds the adapter; raises httpx's and SQLAlchemy's errors otherwise."""
        with transaction(self._engine) as session:
            addresses = urls(session)
        for address in addresses:
            self._evict(address, adapter_id)

    def _evict(self, address: str, adapter_id: str) -> None:
        response = httpx.delete(
            f"{address}/internal/adapters/{adapter_id}",
            headers=self._headers,
            timeout=EVICTION_SECONDS,
            # A proxy's 404 would be taken for "nobody holds it".
            trust_env=False,
        )
        if response.status_code != httpx.codes.NOT_FOUND:
            response.raise_for_status()


class EraseAdapters:
    """Deleted adapters, and adapter folders without a row."""

    name = "erase adapters"

    def __init__(
        self,
        engine: Engine,
        store: LocalStore,
        evict: Eviction,
        orphan_seconds: float,
        batch: int,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine = engine
        self._store = store
        self._evict = evict
        self._orphan_seconds = orphan_seconds
        self._batch = batch
        self._stuck = Stuck(clock)
        self._orphans = OrphanScan(orphan_seconds, clock, self._find_orphans)

    def run(self) -> None:
        """Erase some; one that inference does not let go of, or that cannot be removed, waits."""
        with transaction(self._engine) as session:
            deleted = session.scalars(
                select(Adapter.id)
                .where(deleted_adapters(), Adapter.id.not_in(self._stuck.names()))
                .order_by(Adapter.deleted_at)
                .limit(self._batch)
            ).all()
        for adapter_id in deleted:
            if self._erased(adapter_id):
                with transaction(self._engine) as session:
                    session.execute(
                        update(Adapter)
                        .where(Adapter.id == adapter_id)
                        .values(erased_at=func.clock_timestamp())
                    )
        for adapter_id in self._orphans.some(self._batch):
            self._erased(adapter_id)

    def _erased(self, adapter_id: str) -> bool:
        return self._stuck.erased(adapter_id, lambda: self._erase(adapter_id))

    def _erase(self, adapter_id: str) -> None:
        self._evict(adapter_id)
        remove(self._store.adapters() / adapter_id)

    def _find_orphans(self) -> list[str]:
        """Return old folders without a row: what attempts left that did not finish."""
        old = [
            name
            for name in older_than(self._store.adapters(), self._orphan_seconds)
            if is_adapter_id(name) or name.startswith(TEMPORARY)
        ]
        known = _among(self._engine, select(Adapter.id), Adapter.id, old)
        return [name for name in old if name not in known]


class EraseFiles:
    """Files that were deleted or expired or have no row, and bodies that never arrived whole."""

    name = "erase files"

    def __init__(
        self,
        engine: Engine,
        store: LocalStore,
        orphan_seconds: float,
        batch: int,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine = engine
        self._store = store
        self._orphan_seconds = orphan_seconds
        self._batch = batch
        self._stuck = Stuck(clock)
        self._orphans = OrphanScan(orphan_seconds, clock, self._find_orphans)
        self._bodies = OrphanScan(orphan_seconds, clock, self._find_bodies)

    def run(self) -> None:
        """Remove some; a file that an unfinished job still needs is kept until it ends."""
        with transaction(self._engine) as session:
            needless = session.scalars(
                select(StoredFile.id)
                .where(needless_files(), StoredFile.id.not_in(self._stuck.names()))
                # One that a job is being created with at this moment is locked: the next sweep's.
                .with_for_update(skip_locked=True)
                .limit(self._batch)
            ).all()
        erased = [name for name in needless if self._removed(self._store.upload(name))]
        with transaction(self._engine) as session:
            session.execute(
                update(StoredFile)
                .where(StoredFile.id.in_(erased))
                .values(erased_at=func.clock_timestamp())
            )
            # What jobs have kept of these files' rows goes with them.
            session.execute(update(FineTuningJob).where(_of_files(erased)).values(examples=null()))
        for name in self._orphans.some(self._batch):
            self._removed(self._store.root / "uploads" / name)
        for name in self._bodies.some(self._batch):
            self._removed(self._store.incoming() / name)

    def _removed(self, path: Path) -> bool:
        return self._stuck.erased(path.name, lambda: remove(path))

    def _find_orphans(self) -> list[str]:
        old = older_than(self._store.root / "uploads", self._orphan_seconds)
        known = _among(self._engine, select(StoredFile.id), StoredFile.id, old)
        return [name for name in old if name not in known]

    def _find_bodies(self) -> list[str]:
        return older_than(self._store.incoming(), self._orphan_seconds)


class EraseAttempts:
    """Checkpoints of jobs that have ended or have no row.

    Until a job has ended a later attempt may resume from them.
    """

    name = "erase attempts"

    def __init__(
        self,
        engine: Engine,
        store: LocalStore,
        keep_seconds: float,
        orphan_seconds: float,
        batch: int,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine = engine
        self._store = store
        self._keep_seconds = keep_seconds
        self._orphan_seconds = orphan_seconds
        self._batch = batch
        self._stuck = Stuck(clock)
        self._orphans = OrphanScan(orphan_seconds, clock, self._find_orphans)

    def run(self) -> None:
        """Remove the attempts of every job that ended a while ago, and some without a row."""
        for job_id in (*self._ended(), *self._orphans.some(self._batch)):
            self._stuck.erased(job_id, partial(remove, self._store.job_attempts(job_id)))

    def _ended(self) -> set[str]:
        stuck = self._stuck.names()
        present = {path.name for path in entries(self._store.root / "attempts")} - stuck
        a_while_ago = func.clock_timestamp() - timedelta(seconds=self._keep_seconds)
        ended = select(FineTuningJob.id).where(
            FineTuningJob.state.in_(TERMINAL), FineTuningJob.finished_at <= a_while_ago
        )
        return _among(self._engine, ended, FineTuningJob.id, present)

    def _find_orphans(self) -> list[str]:
        """Return old folders without a row: a backup of the database was older than the store."""
        old = [
            name
            for name in older_than(self._store.root / "attempts", self._orphan_seconds)
            if is_job_id(name)
        ]
        known = _among(self._engine, select(FineTuningJob.id), FineTuningJob.id, old)
        return [name for name in old if name not in known]


def deleted_adapters() -> ColumnElement[bool]:
    """Say of an adapter whether it is deleted and not erased."""
    return and_(Adapter.deleted_at.is_not(None), Adapter.erased_at.is_(None))


def needless_files() -> ColumnElement[bool]:
    """Say of a file whether it is deleted or expired, not erased, and of no unfinished job."""
    needed = exists().where(FineTuningJob.state.not_in(TERMINAL), _of_files([StoredFile.id]))
    gone = or_(StoredFile.deleted_at.is_not(None), StoredFile.expires_at <= func.clock_timestamp())
    return and_(StoredFile.erased_at.is_(None), gone, ~needed)


def _of_files(ids: Sequence[Any]) -> ColumnElement[bool]:
    """Say of a job whether it is of one of these files."""
    return or_(FineTuningJob.training_file_id.in_(ids), FineTuningJob.validation_file_id.in_(ids))


def _among(
    engine: Engine, query: Select[str], column: InstrumentedAttribute[str], names: Iterable[str]
) -> set[str]:
    """Return what ``query`` finds among ``names``, which may be any number."""
    if not (names := list(names)):
        return set()
    # One array: of single parameters PostgreSQL takes 65,535.
    array = literal(names, ARRAY(String))
    with transaction(engine) as session:
        return set(session.scalars(query.where(column == any_(array))))
