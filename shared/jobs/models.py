"""Fine-tuning jobs and their events."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import CreatedAt, Id, Row, Timestamp
from shared.jobs.state import PUBLIC, State

_STATES = ", ".join(f"'{state}'" for state in State)


class FineTuningJob(Row):
    """One job: what was asked, where it is, who holds it, what came of it."""

    __tablename__ = "fine_tuning_jobs"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        Index("ix_fine_tuning_jobs_queue", "queue", "state", "created_at"),
        Index(
            "ix_fine_tuning_jobs_validating",
            "tenant_id",
            "created_at",
            postgresql_where="state = 'validating'",
        ),
        Index(
            "uq_fine_tuning_jobs_idempotency",
            "tenant_id",
            "idempotency_key",
            unique=True,
            postgresql_where="idempotency_key IS NOT NULL",
        ),
    )

    id: Mapped[Id]
    """``ftjob-<ULID>``."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    created_at: Mapped[CreatedAt]

    # What was asked
    base_model: Mapped[str] = mapped_column(String(100))
    training_file_id: Mapped[str] = mapped_column(ForeignKey("files.id"))
    validation_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))
    suffix: Mapped[str | None] = mapped_column(String(64))
    seed: Mapped[int]
    user_metadata: Mapped[dict[str, Any] | None]
    method: Mapped[str] = mapped_column(String(16), server_default="supervised")
    hyperparameters: Mapped[dict[str, Any]]
    """shared.jobs.hyperparameters.Hyperparameters as JSON: numbers, never ``auto``."""
    queue: Mapped[str] = mapped_column(String(32), server_default="default")
    priority: Mapped[int] = mapped_column(server_default="0")
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request_sha256: Mapped[str | None] = mapped_column(String(64))

    # Where it is, and who holds it
    state: Mapped[State] = mapped_column(String(16))
    state_changed_at: Mapped[CreatedAt]
    attempt: Mapped[int] = mapped_column(server_default="0")
    """Grows by one at each claim; every write of a worker carries it."""
    lease_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Grows with every heartbeat; the scheduler only watches whether it moves."""
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_charged_at: Mapped[Timestamp | None]
    """Up to here the attempt's time is in its tenant's usage."""
    not_before: Mapped[Timestamp | None]
    """Back-off: nobody claims the job before this time."""

    # Failure accounting; see docs/job-lifecycle.md
    crashes: Mapped[int] = mapped_column(server_default="0")
    """Crashes of the trainer itself since ``highest_step`` last grew."""
    fruitless_attempts: Mapped[int] = mapped_column(server_default="0")
    """Attempts since ``highest_step`` last grew, each counted from its claim; see lease.py."""
    highest_step: Mapped[int] = mapped_column(server_default="0")
    micro_batch_divisor: Mapped[int] = mapped_column(server_default="1")
    """Doubled by an out-of-memory failure: half the micro-batch, the same effective batch."""

    # What came of it
    started_at: Mapped[Timestamp | None]
    finished_at: Mapped[Timestamp | None]
    progress: Mapped[dict[str, Any] | None]
    """Latest progress: step, total_steps, epoch, loss, tokens_per_second, seconds_left."""
    metrics: Mapped[dict[str, Any] | None]
    """Loss and token accuracy on validation and test rows, before and after; forgetting."""
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[dict[str, Any] | None]
    """``code``, ``message``, ``param`` of a failed job."""
    data_report: Mapped[dict[str, Any] | None]
    """shared.datareport.report.DataReport as JSON, made while ``validating``."""
    examples: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """shared.jobs.examples.Examples as JSON; read where it is shown, and nowhere else."""
    result_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))

    @property
    def public_status(self) -> str:
        """OpenAI's name for the state; before the first training begins a claim shows queued."""
        if self.state == State.STARTING and self.started_at is None:
            return "queued"
        return PUBLIC[State(self.state)]

    @property
    def cancel_requested(self) -> bool:
        """Whether its user has cancelled the job, also while the worker still ends it."""
        return self.state in {State.CANCELLING, State.CANCELLED}


class JobEvent(Row):
    """The user's feed, the audit trail and the tests' oracle: one row per transition or metric."""

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_seq", "job_id", "seq"),)

    id: Mapped[Id]
    """``ftevent-<ULID>``."""
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("fine_tuning_jobs.id"))
    attempt: Mapped[int]
    state: Mapped[State | None] = mapped_column(String(16))
    """The state entered, when the event is a transition."""
    created_at: Mapped[CreatedAt]
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(8))
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]
