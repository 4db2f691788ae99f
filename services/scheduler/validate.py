"""Moves jobs on that wait for their files: to the queue, or to ``failed`` with the file's error."""

from typing import TYPE_CHECKING

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from shared.db import transaction
from shared.errors import LeaseLost
from shared.files.models import StoredFile
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
                queued = _advance(session, job)
            if queued:
                ring(self._app, job.queue)


def _advance(session: Session, job: FineTuningJob) -> bool:
    """Move one job if it is time; say whether it is queued now."""
    files = {"training_file": job.training_file_id, "validation_file": job.validation_file_id}
    ready = True
    for param, file_id in files.items():
        file = session.get(StoredFile, file_id) if file_id else None
        if file is None:
            continue
        if file.deleted_at or file.status == "error":
            _fail(session, job, param, file.status_details or "The file was deleted.")
            return False
        ready = ready and file.status == "processed"
    return ready and _queue(session, job)


def _queue(session: Session, job: FineTuningJob) -> bool:
    try:
        move(
            session,
            job.id,
            State.QUEUED,
            "Files validated, moving job to queued state",
            sources=frozenset({State.VALIDATING}),
        )
    except LeaseLost:  # cancelled meanwhile
        return False
    return True


def _fail(session: Session, job: FineTuningJob, param: str, reason: str) -> None:
    message = f"The job failed due to an invalid {param.replace('_', ' ')}. {reason}"
    move(
        session,
        job.id,
        State.FAILED,
        message,
        sources=frozenset({State.VALIDATING}),
        level="error",
        error={"code": ERROR_CODES[param], "message": message, "param": param},
    )
