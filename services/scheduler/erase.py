"""Removes what nobody needs any more: deleted adapters and files, finished jobs' attempts, orphans.

Of an adapter every server lets go first: vLLM keeps the path of a name it has forgotten, and a
missing file would end its engine for everybody. Only then are files removed, then the row marked.
"""

import shutil
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import httpx
from sqlalchemy import Engine, Select, exists, func, or_, select, update

from shared.adapters.models import Adapter
from shared.db import transaction
from shared.files.models import StoredFile
from shared.ids import is_adapter_id
from shared.jobs.models import FineTuningJob
from shared.jobs.state import TERMINAL
from shared.storage import LocalStore

EVICTION_SECONDS = 30.0
"""More than twice TAILOR_INFERENCE_DRAIN_SECONDS: running answers end first, or are aborted."""


class Eviction:
    """Asks the inference service to let go of an adapter."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {secret}"}

    def __call__(self, adapter_id: str) -> None:
        """Return when no server holds the adapter; raises httpx errors otherwise."""
        response = httpx.delete(
            f"{self._url}/internal/adapters/{adapter_id}",
            headers=self._headers,
            timeout=EVICTION_SECONDS,
        )
        if response.status_code != httpx.codes.NOT_FOUND:
            response.raise_for_status()


class EraseAdapters:
    """Deleted adapters, and adapter folders without a row."""

    name = "erase adapters"

    def __init__(
        self, engine: Engine, store: LocalStore, evict: Eviction, orphan_seconds: float, batch: int
    ) -> None:
        self._engine = engine
        self._store = store
        self._evict = evict
        self._orphan_seconds = orphan_seconds
        self._batch = batch

    def run(self) -> None:
        """Erase some; the first that inference does not let go of ends the sweep's share."""
        with transaction(self._engine) as session:
            deleted = session.scalars(
                select(Adapter.id)
                .where(Adapter.deleted_at.is_not(None), Adapter.erased_at.is_(None))
                .order_by(Adapter.deleted_at)
                .limit(self._batch)
            ).all()
        for adapter_id in deleted:
            self._erase(adapter_id)
            with transaction(self._engine) as session:
                session.execute(
                    update(Adapter)
                    .where(Adapter.id == adapter_id)
                    .values(erased_at=func.clock_timestamp())
                )
        for adapter_id in self._orphans():
            self._erase(adapter_id)

    def _erase(self, adapter_id: str) -> None:
        self._evict(adapter_id)
        shutil.rmtree(self._store.adapter(adapter_id), ignore_errors=True)

    def _orphans(self) -> list[str]:
        """Return old folders without a row: what attempts left that did not finish."""
        old = [
            name
            for name in _older_than(self._store.adapters(), self._orphan_seconds)
            if is_adapter_id(name)
        ]
        with transaction(self._engine) as session:
            known = set(session.scalars(select(Adapter.id).where(Adapter.id.in_(old))))
        return [name for name in old if name not in known][: self._batch]


class EraseFiles:
    """Uploads that were deleted or have no row, and bodies that never arrived whole."""

    name = "erase files"

    def __init__(self, engine: Engine, store: LocalStore, orphan_seconds: float) -> None:
        self._engine = engine
        self._store = store
        self._orphan_seconds = orphan_seconds

    def run(self) -> None:
        """Remove their folders; a file that an unfinished job still needs is kept until it ends."""
        uploads = self._store.root / "uploads"
        present = {path.name for path in _entries(uploads)}
        with transaction(self._engine) as session:
            known = set(session.scalars(select(StoredFile.id).where(StoredFile.id.in_(present))))
            needless = set(session.scalars(_deleted_and_unneeded(present)))
        orphans = set(_older_than(uploads, self._orphan_seconds)) - known
        for name in needless | orphans:
            shutil.rmtree(uploads / name, ignore_errors=True)
        for name in _older_than(self._store.incoming(), self._orphan_seconds):
            _remove(self._store.incoming() / name)


class EraseAttempts:
    """Checkpoints of jobs that have ended; until then a later attempt may resume from them."""

    name = "erase attempts"

    def __init__(self, engine: Engine, store: LocalStore, keep_seconds: float) -> None:
        self._engine = engine
        self._store = store
        self._keep_seconds = keep_seconds

    def run(self) -> None:
        """Remove the attempts of every job that ended a while ago."""
        present = [path.name for path in _entries(self._store.root / "attempts")]
        ended = FineTuningJob.finished_at <= func.clock_timestamp() - timedelta(
            seconds=self._keep_seconds
        )
        with transaction(self._engine) as session:
            needless = session.scalars(
                select(FineTuningJob.id).where(
                    FineTuningJob.id.in_(present), FineTuningJob.state.in_(TERMINAL), ended
                )
            ).all()
        for job_id in needless:
            shutil.rmtree(self._store.job_attempts(job_id), ignore_errors=True)


def _deleted_and_unneeded(present: Iterable[str]) -> Select[str]:
    """Select the files among ``present`` that are deleted and of no unfinished job."""
    needed = exists().where(
        FineTuningJob.state.not_in(TERMINAL),
        or_(
            FineTuningJob.training_file_id == StoredFile.id,
            FineTuningJob.validation_file_id == StoredFile.id,
        ),
    )
    return select(StoredFile.id).where(
        StoredFile.id.in_(present), StoredFile.deleted_at.is_not(None), ~needed
    )


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _older_than(folder: Path, seconds: float) -> list[str]:
    """Return the names in ``folder`` that have not changed for ``seconds``."""
    limit = time.time() - seconds
    names = []
    for path in _entries(folder):
        try:
            if path.stat().st_mtime < limit:
                names.append(path.name)
        except FileNotFoundError:
            continue
    return names


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
