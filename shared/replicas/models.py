"""Registrations of inference processes: what each serves, where, and that it is alive."""

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import CreatedAt, Id, Row, Timestamp


class InferenceReplica(Row):
    """One inference process, from its start until it ends or is found silent.

    It may hold any adapter as long as this row stands, so files go only after it has let go.
    """

    __tablename__ = "inference_replicas"

    id: Mapped[Id]
    """``rep_<ULID>``, new for each registration."""
    url: Mapped[str] = mapped_column(String(300), unique=True)
    """Where the others reach it: one process has one address."""
    base_model: Mapped[str] = mapped_column(String(100))
    base_sha256: Mapped[str] = mapped_column(String(64))
    """Of the weights it has read."""
    profile_sha256: Mapped[str] = mapped_column(String(64))
    places: Mapped[int]
    """Adapters that it runs at once."""
    slots: Mapped[int]
    """Sequences that it runs at once."""
    ready: Mapped[bool]
    """Whether it answers; one that starts its engine is registered and does not."""
    beats: Mapped[int] = mapped_column(BigInteger)
    """Grows with every sign of life."""
    beat_at: Mapped[Timestamp]
    """Of the last one, by the database's clock."""
    registered_at: Mapped[CreatedAt]
