"""Checks the files of new jobs, in processes of their own, and moves the jobs on.

A few places, each a thread with one warm checker. Which job is next is fair between tenants. The
row is the truth: a scheduler that dies leaves the job ``validating``, and the next one begins its
check again; with two schedulers the second to finish finds the job moved and keeps nothing.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Engine, Select, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.scheduler.checker import COMMAND, Abandoned, Checker, CheckFailed, checker_environment
from services.scheduler.checking.spec import CheckResult, CheckSpec
from services.scheduler.settings import SchedulerSettings
from shared.catalog import Catalog
from shared.datareport.report import Param
from shared.db import transaction
from shared.errors import LeaseLost
from shared.files.models import StoredFile
from shared.files.report import too_few_rows
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State
from shared.jobs.transitions import move
from shared.storage import LocalStore
from shared.task_queue import ring
from shared.telemetry import log_event

if TYPE_CHECKING:
    from celery import Celery

ERROR_CODES: dict[Param, str] = {
    "training_file": "invalid_training_file",
    "validation_file": "invalid_validation_file",
}
QUEUED = "Files validated, moving job to queued state"

log = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """A job whose files are to be checked."""

    job_id: str
    tenant_id: str
    created_at: datetime


@dataclass
class Fairness:
    """Which job is next: the tenant with the least in hand, then served longest ago, then age.

    A tenant never takes the last of several places: another's small file does not wait for large
    ones.
    """

    places: int
    in_hand: dict[str, str] = field(default_factory=dict)
    """Tenant by job."""
    _turns: int = 0
    _last_turn: dict[str, int] = field(default_factory=dict)

    def choose(self, waiting: Sequence[Waiting]) -> Waiting | None:
        """Take one of ``waiting`` in hand; None when none is due."""
        held = Counter(self.in_hand.values())
        most = max(1, self.places - 1)
        due = [
            job for job in waiting if job.job_id not in self.in_hand and held[job.tenant_id] < most
        ]
        if not due:
            return None
        best = min(
            due,
            key=lambda job: (
                held[job.tenant_id],
                self._last_turn.get(job.tenant_id, 0),
                job.created_at,
            ),
        )
        self._turns += 1
        self._last_turn[best.tenant_id] = self._turns
        self.in_hand[best.job_id] = best.tenant_id
        return best

    def release(self, job: Waiting) -> None:
        """Put a job out of hand."""
        self.in_hand.pop(job.job_id, None)


class Validation:
    """All places; ``run`` is one's thread."""

    def __init__(
        self,
        engine: Engine,
        app: "Celery",
        catalog: Catalog,
        settings: SchedulerSettings,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._engine = engine
        self._app = app
        self._catalog = catalog
        self._settings = settings
        self._store = LocalStore(settings.store_dir)
        self._command = command
        self._lock = threading.Lock()
        self._fairness = Fairness(settings.validation_processes)
        self._failures: Counter[str] = Counter()

    def start(self, stop: threading.Event) -> list[threading.Thread]:
        """Start all places; they end soon after ``stop`` is set."""
        threads = [
            threading.Thread(
                target=self.run, args=(stop, place == 0), name=f"validate-{place}", daemon=True
            )
            for place in range(self._settings.validation_processes)
        ]
        for thread in threads:
            thread.start()
        return threads

    def run(self, stop: threading.Event, warm: bool) -> None:
        """Check one job after the other until ``stop`` is set.

        One ``warm`` place has loaded its libraries (seconds) before there is a job; the others load
        them with their first.
        """
        memory_mb = self._settings.validation_memory_mb
        checker = Checker(self._command, checker_environment(os.environ), memory_mb)
        try:
            if warm:
                checker.start()
            while not stop.is_set():
                if not self._one(checker, stop):
                    stop.wait(self._settings.validation_poll_seconds)
        finally:
            checker.kill()

    def _one(self, checker: Checker, stop: threading.Event) -> bool:
        """Take and finish one job; False when there is none, or the database is away."""
        try:
            job = self._take()
        except Exception:
            log.warning(
                "no job could be taken for validation",
                extra=log_event("validation_not_begun"),
                exc_info=True,
            )
            stop.wait(self._settings.scheduler_interval_seconds)
            return False
        if job is None:
            return False
        try:
            self._validate(job, checker, stop)
        except Exception:
            log.warning(
                "validation failed",
                extra=log_event("validation_failed", job_id=job.job_id),
                exc_info=True,
            )
            stop.wait(self._settings.scheduler_interval_seconds)
            return False
        finally:
            with self._lock:
                self._fairness.release(job)
        return True

    def _take(self) -> Waiting | None:
        with self._lock:
            with transaction(self._engine) as session:
                rows = session.execute(_oldest_of_each_tenant(list(self._fairness.in_hand)))
                waiting = [Waiting(*row) for row in rows]
            return self._fairness.choose(waiting)

    def _validate(self, waiting: Waiting, checker: Checker, stop: threading.Event) -> None:
        with transaction(self._engine) as session:
            job = session.get_one(FineTuningJob, waiting.job_id)
            error = known_error(session, job)
            if error:
                _fail(session, job, error)
                return
        try:
            result = checker.check(
                self._spec(job),
                self._settings.validation_seconds,
                self._settings.validation_poll_seconds,
                lambda: not stop.is_set() and self._still_waits(job.id),
            )
        except Abandoned:
            return
        except CheckFailed as failure:
            self._failed(job, str(failure))
            return
        self._failures.pop(job.id, None)
        with transaction(self._engine) as session:
            queued = conclude(session, job, result)
        if queued:
            ring(self._app, job.queue)

    def _spec(self, job: FineTuningJob) -> CheckSpec:
        base = self._catalog.get(job.base_model)
        validation = job.validation_file_id
        return CheckSpec(
            job_id=job.id,
            base_model=base.name,
            base_folder=base.folder(self._settings.models_dir).absolute(),
            context_length=base.context_length,
            training_rows=self._rows(job.training_file_id),
            validation_rows=self._rows(validation) if validation else None,
            n_epochs=job.hyperparameters["n_epochs"],
            cpu_seconds=int(self._settings.validation_seconds) + 1,
        )

    def _rows(self, file_id: str) -> Any:
        return (self._store.upload(file_id) / "rows.jsonl").absolute()

    def _still_waits(self, job_id: str) -> bool:
        try:
            with transaction(self._engine) as session:
                state = session.scalar(
                    select(FineTuningJob.state).where(FineTuningJob.id == job_id)
                )
        except DBAPIError:
            return True  # the database is away; the check may as well go on
        return state == State.VALIDATING

    def _failed(self, job: FineTuningJob, reason: str) -> None:
        """Let the job be checked again, or give it up after too many times."""
        self._failures[job.id] += 1
        times = self._failures[job.id]
        data = {"job_id": job.id, "times": times, "reason": reason}
        log.warning("a check failed", extra=log_event("check_failed", **data))
        if times < self._settings.validation_attempts:
            return
        del self._failures[job.id]
        message = (
            f"The files could not be checked: the check ended without a result {times} times "
            f"(the last one {reason}). Smaller files may help; or ask the administrator."
        )
        error = {"code": "validation_failed", "message": message, "param": "training_file"}
        with transaction(self._engine) as session:
            _fail(session, job, error)


def _oldest_of_each_tenant(but: list[str]) -> Select[str, str, datetime]:
    """Select, of each tenant, the oldest job that waits for its check."""
    return (
        select(FineTuningJob.id, FineTuningJob.tenant_id, FineTuningJob.created_at)
        .where(FineTuningJob.state == State.VALIDATING, FineTuningJob.id.not_in(but))
        .ext(distinct_on(FineTuningJob.tenant_id))
        .order_by(FineTuningJob.tenant_id, FineTuningJob.created_at, FineTuningJob.id)
    )


def known_error(session: Session, job: FineTuningJob) -> dict[str, str] | None:
    """Return what is wrong with a job's files without reading them."""
    files: dict[Param, str | None] = {
        "training_file": job.training_file_id,
        "validation_file": job.validation_file_id,
    }
    rows = 0
    for param, file_id in files.items():
        file = session.get(StoredFile, file_id) if file_id else None
        if file is None:
            continue
        if file.deleted_at:
            return _deleted(param)
        if param == "training_file":
            rows = file.report.get("rows", 0)
    return too_few_rows(rows)


def _deleted(param: Param) -> dict[str, str]:
    name = param.replace("_", " ")
    message = f"The job failed due to an invalid {name}. The file was deleted."
    return {"code": ERROR_CODES[param], "message": message, "param": param}


def conclude(session: Session, job: FineTuningJob, result: CheckResult) -> bool:
    """Keep the report with job and files, and move the job; say whether it is queued now."""
    report = result.report.model_dump()
    if result.error:
        moved = _fail(session, job, result.error.model_dump(), data_report=report)
    else:
        moved = _moved(session, job, State.QUEUED, QUEUED, data_report=report)
    if not moved:
        return False
    _keep_with_file(session, job.training_file_id, result, "training_file")
    if job.validation_file_id:
        _keep_with_file(session, job.validation_file_id, result, "validation_file")
    return result.error is None


def _keep_with_file(session: Session, file_id: str, result: CheckResult, param: Param) -> None:
    session.execute(
        update(StoredFile)
        .where(StoredFile.id == file_id)
        .values(data_report=result.report.about(param).model_dump())
    )


def _fail(session: Session, job: FineTuningJob, error: dict[str, str], **values: Any) -> bool:
    return _moved(
        session, job, State.FAILED, error["message"], level="error", error=error, **values
    )


def _moved(session: Session, job: FineTuningJob, to: State, message: str, **values: Any) -> bool:
    """Move a job; say whether it was still there to be moved."""
    try:
        move(session, job.id, to, message, sources=frozenset({State.VALIDATING}), **values)
    except LeaseLost:  # cancelled meanwhile, or another scheduler was first
        return False
    return True
