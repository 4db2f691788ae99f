"""Moves jobs on that wait for their files: to the queue, or to ``failed`` with the file's error."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from shared.db import transaction
from shared.errors import LeaseLost
from shared.files.models import StoredFile
from shared.files.report import too_few_rows
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State
from shared.jobs.transitions import move
from shared.task_queue import ring

if TYPE_CHECKING:
    from celery import Celery

ERROR_CODES = {
    "training_file": "invalid_training_file",
    "validation_file": "invalid_validation_file",
}


class Validate:
    """The duty."""

    name = "validate"

    def __init__(self, engine: Engine, app: "Celery") -> None:
        self._engine = engine
        self._app = app

    def run(self) -> None:
        """Advance every job whose files are ready, or cannot become so."""
        with transaction(self._engine) as session:
            waiting = list(
                session.scalars(
                    select(FineTuningJob).where(FineTuningJob.state == State.VALIDATING)
                )
            )
        for job in waiting:
            with transaction(self._engine) as session:
                queued = advance(session, job)
            if queued:
                ring(self._app, job.queue)


def advance(session: Session, job: FineTuningJob) -> bool:
    """Move one job if it is time; say whether it is queued now."""
    files = {"training_file": job.training_file_id, "validation_file": job.validation_file_id}
    rows, ready = 0, True
    for param, file_id in files.items():
        file = session.get(StoredFile, file_id) if file_id else None
        if file is None:
            continue
        if file.deleted_at or file.status == "error":
            return _fail(session, job, _of_file(param, file))
        ready = ready and file.status == "processed"
        if param == "training_file":
            rows = file.report.get("rows", 0)
    if not ready:
        return False
    error = too_few_rows(rows)
    return _fail(session, job, error) if error else _queue(session, job)


def _of_file(param: str, file: StoredFile) -> dict[str, str]:
    reason = file.status_details or "The file was deleted."
    message = f"The job failed due to an invalid {param.replace('_', ' ')}. {reason}"
    return {"code": ERROR_CODES[param], "message": message, "param": param}


def _queue(session: Session, job: FineTuningJob) -> bool:
    return _moved(session, job, State.QUEUED, "Files validated, moving job to queued state")


def _fail(session: Session, job: FineTuningJob, error: dict[str, str]) -> bool:
    _moved(session, job, State.FAILED, error["message"], level="error", error=error)
    return False


def _moved(session: Session, job: FineTuningJob, to: State, message: str, **values: Any) -> bool:
    """Move a job; say whether it was still there to be moved."""
    try:
        move(session, job.id, to, message, sources=frozenset({State.VALIDATING}), **values)
    except LeaseLost:  # cancelled meanwhile
        return False
    return True
