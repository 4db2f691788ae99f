"""Tells the owner of a queued job that its base model is not served: no worker claims it."""

from sqlalchemy import Engine, exists, select

from shared.db import transaction
from shared.jobs.models import FineTuningJob, JobEvent
from shared.jobs.state import State
from shared.jobs.transitions import record

REASON = "base_not_served"


class Unserved:
    """The duty: one event for each stay of such a job in the queue."""

    name = "unserved"

    def __init__(self, engine: Engine, base_model: str) -> None:
        self._engine = engine
        self._base_model = base_model

    def run(self) -> None:
        """Say it to those that have not been told since they were queued."""
        told = exists().where(
            JobEvent.job_id == FineTuningJob.id,
            JobEvent.created_at >= FineTuningJob.state_changed_at,
            JobEvent.data["reason"].astext == REASON,
        )
        waiting = select(FineTuningJob).where(
            FineTuningJob.state == State.QUEUED,
            FineTuningJob.base_model != self._base_model,
            ~told,
        )
        with transaction(self._engine) as session:
            # A job that is claimed or cancelled at this moment is told nothing.
            for job in session.scalars(waiting.with_for_update(skip_locked=True)).all():
                message = (
                    f"The job waits: this installation serves `{self._base_model}` and not "
                    f"`{job.base_model}`. It goes on when that is served again; or cancel it and "
                    f"create a job on `{self._base_model}`"
                )
                record(session, job, message, level="warn", data={"reason": REASON})
