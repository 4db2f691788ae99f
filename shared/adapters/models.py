"""Adapters: the callable result of a job, and its callable checkpoints."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import CreatedAt, Id, Row, Timestamp


class Adapter(Row):
    """One published adapter; its files in ``adapters/<id>/`` never change."""

    __tablename__ = "adapters"
    __table_args__ = (
        CheckConstraint("kind IN ('final', 'checkpoint', 'import')", name="kind"),
        Index("uq_adapters_final", "job_id", unique=True, postgresql_where="kind = 'final'"),
        Index(
            "uq_adapters_step",
            "job_id",
            "step",
            unique=True,
            postgresql_where="kind = 'checkpoint'",
        ),
    )

    id: Mapped[Id]
    """``ad_<ULID>``: the model name inside the inference service; never shown to users."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("fine_tuning_jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(String(200), unique=True)
    """Public name, ``ft:base:org:suffix:8chars`` or ``…:ckpt-step-N``."""
    step: Mapped[int]
    base_model: Mapped[str] = mapped_column(String(100))
    base_sha256: Mapped[str] = mapped_column(String(64))
    profile_sha256: Mapped[str | None] = mapped_column(String(64))
    """Hash of the catalog's profile it was trained for; None: published before it was recorded."""
    metrics: Mapped[dict[str, Any]]
    data_format: Mapped[str | None] = mapped_column(String(16))
    """Format of the training file's rows: what it was trained on as ``prompt`` is answered so by
    /v1/completions, too."""
    created_at: Mapped[CreatedAt]
    deleted_at: Mapped[Timestamp | None]
    """Set by the user's delete: from now on nobody can call it."""
    erased_at: Mapped[Timestamp | None]
    """Set by the scheduler when every server has let go of it and its files are gone."""
