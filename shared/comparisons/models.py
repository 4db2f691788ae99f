"""Comparisons, their answers and their events."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Float, ForeignKey, Identity, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.comparisons.state import State
from shared.db import CreatedAt, Id, Row, Timestamp

_STATES = ", ".join(f"'{state}'" for state in State)


class Comparison(Row):
    """One comparison: what was asked, where it is, who holds it, what came of it."""

    __tablename__ = "comparisons"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        Index("ix_comparisons_state", "state", "created_at"),
        Index(
            "uq_comparisons_idempotency",
            "tenant_id",
            "idempotency_key",
            unique=True,
            postgresql_where="idempotency_key IS NOT NULL",
        ),
    )

    id: Mapped[Id]
    """``cmp-<ULID>``."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    created_at: Mapped[CreatedAt]

    # What was asked
    base_model: Mapped[str] = mapped_column(String(100))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("fine_tuning_jobs.id"), index=True)
    """None: before any training."""
    training_file_id: Mapped[str] = mapped_column(ForeignKey("files.id"))
    held_out_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))
    """None: a part of the training file is set apart."""
    document_file_ids: Mapped[list[Any]]
    arms: Mapped[list[Any]]
    """Names of ``shared.evidence.arms.Arm``."""
    checker: Mapped[str | None] = mapped_column(String(32))
    """None: chosen by the data."""
    questions: Mapped[int]
    """At most so many held-out rows are set apart and asked."""
    max_tokens: Mapped[int | None]
    """Greatest answer length; None: by the longest expected answer."""
    seed: Mapped[int]
    retriever: Mapped[str] = mapped_column(String(16))
    """``bm25``, ``embedding`` or ``hybrid``."""
    user_metadata: Mapped[dict[str, Any] | None]
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request_sha256: Mapped[str | None] = mapped_column(String(64))

    # Where it is, and who holds it
    state: Mapped[State] = mapped_column(String(16))
    state_changed_at: Mapped[CreatedAt]
    attempt: Mapped[int] = mapped_column(server_default="0")
    """Grows by one at each claim; every write of a comparer carries it."""
    lease_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Grows with every heartbeat; the scheduler only watches whether it moves."""
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    not_before: Mapped[Timestamp | None]
    """Back-off: nobody claims it before this time."""
    fruitless_attempts: Mapped[int] = mapped_column(server_default="0")
    """Attempts since more questions were last answered, each counted from its claim."""
    most_asked: Mapped[int] = mapped_column(server_default="0")

    # What came of it
    started_at: Mapped[Timestamp | None]
    finished_at: Mapped[Timestamp | None]
    progress: Mapped[dict[str, Any] | None]
    """``asked`` and ``total`` questions of all arms, and the ``arm`` at hand."""
    error: Mapped[dict[str, Any] | None]
    """``code``, ``message``, ``param`` of a failed comparison."""
    report: Mapped[dict[str, Any] | None]
    """shared.evidence.report.Report as JSON."""
    deleted_at: Mapped[Timestamp | None]
    """Answers, events and report are gone with it."""

    @property
    def cancel_requested(self) -> bool:
        """Whether its user has cancelled it, also while the comparer still ends it."""
        return self.state in {State.CANCELLING, State.CANCELLED}


class ComparisonAnswer(Row):
    """What one arm said to one question; written once."""

    __tablename__ = "comparison_answers"

    comparison_id: Mapped[str] = mapped_column(ForeignKey("comparisons.id"), primary_key=True)
    arm: Mapped[str] = mapped_column(String(32), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    """Of the question in its file."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    answer: Mapped[str]
    failed: Mapped[str | None] = mapped_column(String(64))
    """Code of the error, where the question could not be asked."""
    cut: Mapped[bool]
    """The answer reached the greatest length."""
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    first_token_seconds: Mapped[float | None] = mapped_column(Float)
    answer_seconds: Mapped[float | None] = mapped_column(Float)
    retrieved: Mapped[list[Any] | None]
    """Indexes of what stood beside the question: training rows, or passages."""


class ComparisonEvent(Row):
    """The user's feed and the audit trail: one row for each transition, and remarks."""

    __tablename__ = "comparison_events"
    __table_args__ = (Index("ix_comparison_events_comparison_seq", "comparison_id", "seq"),)

    id: Mapped[Id]
    """``cmpevent-<ULID>``."""
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    comparison_id: Mapped[str] = mapped_column(ForeignKey("comparisons.id"))
    attempt: Mapped[int]
    state: Mapped[State | None] = mapped_column(String(16))
    """The state entered, when the event is a transition."""
    created_at: Mapped[CreatedAt]
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(8))
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]
