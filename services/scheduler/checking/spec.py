"""What scheduler and checker say to one another: one JSON line each way for each job."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from shared.datareport.report import DataReport


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)


class CheckSpec(_Line):
    """One job to check."""

    job_id: str
    base_model: str
    base_folder: Path
    context_length: int
    training_rows: Path
    """A normalised ``rows.jsonl``."""
    validation_rows: Path | None
    n_epochs: int
    cpu_seconds: int
    """The kernel ends the process after so much more."""


class JobError(_Line):
    """Why a job fails, as the API shows it."""

    code: str
    message: str
    param: str


class CheckResult(_Line):
    """What came of it; the job is queued unless there is an error."""

    report: DataReport
    error: JobError | None
    peak_mb: int
    """The process's largest size so far."""


class CheckBroke(_Line):
    """The check itself failed; nothing is known of the files."""

    broke: str
    """The error's type: its text may hold a row's."""
