"""Fine-tuning jobs, events and checkpoints: what may be asked, and how they are shown."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.api.comparisons.schemas import Asked
from shared.adapters.models import Adapter
from shared.errors import InvalidRequest
from shared.jobs.examples import Examples
from shared.jobs.hyperparameters import Requested
from shared.jobs.models import FineTuningJob, JobEvent
from shared.jobs.state import State

Suffix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Becomes part of the model's name, so nothing that means something in a URL or a path."""
_Text = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]
_Key = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00]+$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Supervised(_Asked):
    """The one method there is so far."""

    hyperparameters: Requested | None = None


class Method(_Asked):
    """How to train; other methods than ``supervised`` are refused by name."""

    type: str = Field(max_length=32)
    supervised: Supervised | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class Lora(_Asked):
    """Our own ``x_lora``; layers and modules are those of the base model's adapter profile."""

    rank: int | None = Field(None, ge=1)
    """At most the profile's."""


class JobIn(_Asked):
    """A fine-tuning job to be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m-instruct",
                    "training_file": "file-01KAXJ3W8N1V7S9QZ4T5R6M2CD",
                    "suffix": "support",
                    "seed": 1,
                    "method": {
                        "type": "supervised",
                        "supervised": {"hyperparameters": {"n_epochs": 3}},
                    },
                    "metadata": {"team": "support"},
                }
            ]
        }
    )

    model: str = Field(max_length=200)
    training_file: str = Field(max_length=48)
    validation_file: str | None = Field(None, max_length=48)
    suffix: Suffix | None = None
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    metadata: dict[_Key, _Text] | None = Field(None, max_length=16)
    method: Method | None = None
    hyperparameters: Requested | None = None
    """Deprecated by OpenAI in favour of ``method``."""
    integrations: list[Any] | None = None
    x_lora: Lora | None = None
    x_forgetting_budget: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    """By how much the loss on texts that are not the tenant's may rise: 0.1 is a tenth."""
    x_training_share: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    """So much of the rows that could be learnt is: a point of a learning curve."""
    x_compare: Asked | None = None
    """A comparison to be made with the job's model, on rows that the job sets apart for it."""

    def requested(self) -> Requested:
        """Return the hyperparameters from whichever place they were put."""
        if self.method and self.method.supervised and self.method.supervised.hyperparameters:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Requested()


class HyperparametersOut(BaseModel):
    """OpenAI's three, as numbers; the others are Tailor's own keys."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    learning_rate: float
    rank: int
    alpha: int
    forgetting_budget: float | None = None
    training_share: float = 1.0
    held_out: int = 0


class SupervisedOut(BaseModel):
    """The supervised method with its numbers."""

    hyperparameters: HyperparametersOut


class MethodOut(BaseModel):
    """The method with its numbers."""

    type: Literal["supervised"] = "supervised"
    supervised: SupervisedOut


class JobOut(BaseModel):
    """One job. What stands after ``shared_with_openai`` are Tailor's own keys."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    model: str
    created_at: int
    finished_at: int | None
    fine_tuned_model: str | None
    organization_id: str
    result_files: list[str]
    status: str
    training_file: str
    validation_file: str | None
    hyperparameters: HyperparametersOut
    trained_tokens: int | None
    error: dict[str, Any] | None
    seed: int
    estimated_finish: int | None
    integrations: list[Any] = []
    method: MethodOut
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    usage_metrics: None = None
    shared_with_openai: Literal[False] = False
    progress: dict[str, Any] | None
    metrics: dict[str, Any] | None
    data_report: dict[str, Any] | None
    attempt: int
    cancel_requested: bool
    queue_position: int | None
    """1 for the job that the next free worker takes, were nothing else to change; null where it
    does not wait for one."""

    @classmethod
    def of(
        cls, row: FineTuningJob, model_name: str | None, at: datetime, place: int | None
    ) -> "JobOut":
        """Show a row, the name of the model that came of it, and its ``place`` in the queue."""
        numbers = HyperparametersOut.model_validate(row.hyperparameters)
        return cls(
            id=row.id,
            model=row.base_model,
            created_at=int(row.created_at.timestamp()),
            finished_at=_seconds(row.finished_at),
            fine_tuned_model=model_name,
            organization_id=row.tenant_id,
            result_files=[row.result_file_id] if row.result_file_id else [],
            status=row.public_status,
            training_file=row.training_file_id,
            validation_file=row.validation_file_id,
            hyperparameters=numbers,
            trained_tokens=row.trained_tokens,
            error=row.error,
            seed=row.seed,
            estimated_finish=_estimate(row, at),
            method=MethodOut(supervised=SupervisedOut(hyperparameters=numbers)),
            metadata=row.user_metadata,
            user_provided_suffix=row.suffix,
            progress=row.progress,
            metrics=row.metrics,
            data_report=row.data_report,
            attempt=row.attempt,
            cancel_requested=row.cancel_requested,
            queue_position=place,
        )


class EventOut(BaseModel):
    """One event. ``state`` (the state entered) and ``attempt`` are Tailor's own keys."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    type: str
    message: str
    data: dict[str, Any] | None
    state: str | None
    attempt: int

    @classmethod
    def of(cls, row: JobEvent) -> "EventOut":
        """Show a row."""
        return cls(
            id=row.id,
            created_at=int(row.created_at.timestamp()),
            level=row.level,
            type=row.type,
            message=row.message,
            data=row.data,
            state=row.state,
            attempt=row.attempt,
        )


class CheckpointOut(BaseModel):
    """One callable checkpoint."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, Any]

    @classmethod
    def of(cls, row: Adapter, job_id: str) -> "CheckpointOut":
        """Show an adapter's row."""
        return cls(
            id=_checkpoint_prefix(job_id) + str(row.step),
            created_at=int(row.created_at.timestamp()),
            fine_tuned_model_checkpoint=row.model,
            fine_tuning_job_id=job_id,
            step_number=row.step,
            metrics=row.metrics,
        )


class ExamplesOut(Examples):
    """Texts of a job's rows, and of its model."""

    object: Literal["fine_tuning.job.examples"] = "fine_tuning.job.examples"


def checkpoint_step(checkpoint_id: str, job_id: str) -> int:
    """Return the step in a checkpoint's id; raise InvalidRequest for what is none of the job's."""
    step = checkpoint_id.removeprefix(_checkpoint_prefix(job_id))
    if not (step.isascii() and step.isdecimal() and len(step) <= 9):
        raise InvalidRequest("after: not the id of a checkpoint of this job.", "after")
    return int(step)


def _checkpoint_prefix(job_id: str) -> str:
    return f"ftckpt_{job_id.removeprefix('ftjob-')}_"


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None


def _estimate(row: FineTuningJob, at: datetime) -> int | None:
    left = (row.progress or {}).get("seconds_left")
    if row.state != State.RUNNING or not isinstance(left, int | float):
        return None
    return int((at + timedelta(seconds=left)).timestamp())
