"""What a job would be and take, before it is created: numbers for ``auto``, steps, time."""

from math import ceil
from statistics import median
from typing import Literal

from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.api.files.service import fine_tuning_file
from services.api.jobs.schemas import HyperparametersOut, JobIn
from services.api.jobs.service import check_supported, numbers_for
from shared.catalog import BaseModelEntry
from shared.files.models import StoredFile
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State

JOBS = 10
"""So many of the last jobs on a base model tell how fast the next one is."""


class EstimateOut(BaseModel):
    """What a job would be."""

    object: Literal["fine_tuning.job.estimate"] = "fine_tuning.job.estimate"
    model: str
    hyperparameters: HyperparametersOut
    rows: int
    total_steps: int
    """At most: some rows are set apart, and training may stop early."""
    seconds: int | None
    """Of a worker, as earlier jobs on this base model went; null where there was none."""
    jobs_ahead: int
    """Waiting, of all tenants; who is next depends on who has trained least."""


def estimate(
    session: Session, system: Session, tenant_id: str, asked: JobIn, base: BaseModelEntry
) -> EstimateOut:
    """Say what ``asked`` would be; raises as creating it would, for what it names.

    ``system`` sees the other tenants' jobs, of which only counts and speeds are used.
    """
    check_supported(asked)
    training = fine_tuning_file(session, tenant_id, asked.training_file, "training_file")
    if asked.validation_file is not None:
        fine_tuning_file(session, tenant_id, asked.validation_file, "validation_file")
    rows = training.report["rows"]
    numbers = numbers_for(asked, rows, base)
    learnt = max(1, round(rows * asked.x_training_share))
    speed = _seconds_for_a_byte(system, base.name)
    work = training.bytes * numbers.n_epochs * asked.x_training_share
    return EstimateOut(
        model=base.name,
        hyperparameters=HyperparametersOut.model_validate(numbers.model_dump()),
        rows=rows,
        total_steps=numbers.n_epochs * ceil(learnt / numbers.batch_size),
        seconds=None if speed is None else max(1, round(speed * work)),
        jobs_ahead=system.scalar(
            select(func.count(FineTuningJob.id)).where(FineTuningJob.state == State.QUEUED)
        )
        or 0,
    )


def _seconds_for_a_byte(system: Session, base_model: str) -> float | None:
    """Return what a byte of a training file took in each epoch, the median of the last jobs."""
    ended = system.execute(
        select(
            func.extract("epoch", FineTuningJob.finished_at - FineTuningJob.started_at),
            FineTuningJob.hyperparameters,
            StoredFile.bytes,
        )
        .join(StoredFile, StoredFile.id == FineTuningJob.training_file_id)
        .where(
            FineTuningJob.base_model == base_model,
            FineTuningJob.state == State.SUCCEEDED,
            FineTuningJob.started_at.is_not(None),
        )
        .order_by(FineTuningJob.finished_at.desc())
        .limit(JOBS)
    )
    found = [float(took) / (size * numbers["n_epochs"]) for took, numbers, size in ended if size]
    return median(found) if found else None
