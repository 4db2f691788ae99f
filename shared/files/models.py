"""Uploaded files and the report of their validation."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import CreatedAt, Id, Row, Timestamp


class StoredFile(Row):
    """A file a tenant uploaded, or one Tailor made for it (``fine-tune-results``).

    Bytes lie in ``uploads/<id>/``: ``raw`` as sent, and what was read of it: ``rows.jsonl``
    (``fine-tune``) or ``passages.jsonl`` (``user_data``).
    """

    __tablename__ = "files"
    __table_args__ = (
        CheckConstraint("status IN ('uploaded', 'processed', 'error')", name="status"),
    )

    id: Mapped[Id]
    """``file-<ULID>``."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    status_details: Mapped[str | None]
    """OpenAI's field. An upload is checked before it is kept, so ``processed`` without details."""
    report: Mapped[dict[str, Any]]
    """shared.files.rows.Report or shared.files.documents.report.DocumentReport as JSON."""
    data_report: Mapped[dict[str, Any] | None]
    """shared.datareport.report.DataReport as JSON, of the last job that was checked with it."""
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Timestamp | None]
    deleted_at: Mapped[Timestamp | None]
    erased_at: Mapped[Timestamp | None]
    """Set by the scheduler when the bytes are gone."""
