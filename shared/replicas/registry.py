"""The registrations as statements: registering, beating and leaving, expiring, finding.

A registration ends in two ways: another process takes its address, or its beats stand still for a
whole window of the scheduler's observation (as leases do, services/scheduler/reap.py). So a process
that is restarted stays known, as one that does not answer. Whoever finds its own registration gone
has been given up on, and must forget every adapter it holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from shared.adapters.models import Adapter
from shared.catalog import BaseModelEntry, Catalog
from shared.ids import new_id
from shared.replicas.models import InferenceReplica
from shared.replicas.routing import Replica

SILENT_SECONDS = 10.0
"""Whoever was silent for longer is asked only where nobody else is left."""


@dataclass(frozen=True)
class Serves:
    """What an inference process says of itself."""

    url: str
    base_model: str
    base_sha256: str
    profile_sha256: str
    places: int
    slots: int


class NotRegistered(Exception):
    """No process is registered at an address."""


class Beat(NamedTuple):
    """A registration as one scan sees it."""

    id: str
    beats: int


def register(session: Session, serves: Serves, *, ready: bool) -> str:
    """Register a process and return its registration's id; an earlier one of its address ends."""
    session.execute(delete(InferenceReplica).where(InferenceReplica.url == serves.url))
    row = InferenceReplica(
        id=new_id("rep_"),
        ready=ready,
        beats=0,
        beat_at=func.clock_timestamp(),
        **vars(serves),
    )
    session.add(row)
    session.flush()
    return row.id


def beat(session: Session, replica_id: str, *, ready: bool) -> bool:
    """Give a sign of life; False where the registration is gone."""
    known = session.scalar(
        update(InferenceReplica)
        .where(InferenceReplica.id == replica_id)
        .values(ready=ready, beats=InferenceReplica.beats + 1, beat_at=func.clock_timestamp())
        .returning(InferenceReplica.id)
    )
    return known is not None


def may_load(session: Session, url: str, adapter_id: str) -> bool:
    """Say whether the process at ``url`` may load an adapter: not one that is deleted.

    (One that is being published has no row yet.) Raises NotRegistered: nobody would ask this
    process to let go.
    """
    registered = exists(InferenceReplica.id).where(InferenceReplica.url == url)
    # By the columns alone that the role may see.
    deleted = exists(Adapter.id).where(Adapter.id == adapter_id, Adapter.deleted_at.is_not(None))
    is_registered, is_deleted = session.execute(select(registered, deleted)).one()
    if not is_registered:
        raise NotRegistered(url)
    return not is_deleted


def beats(session: Session) -> list[Beat]:
    """Return the registrations with their beats, to be watched."""
    rows = session.execute(select(InferenceReplica.id, InferenceReplica.beats))
    return [Beat(*row) for row in rows]


def expire(session: Session, seen: Beat) -> bool:
    """End a registration whose process has given no sign of life since ``seen``."""
    gone = session.scalar(
        delete(InferenceReplica)
        .where(InferenceReplica.id == seen.id, InferenceReplica.beats == seen.beats)
        .returning(InferenceReplica.id)
    )
    return gone is not None


def urls(session: Session) -> Sequence[str]:
    """Return the addresses of all processes that may hold an adapter."""
    return session.scalars(select(InferenceReplica.url)).all()


class Standing(NamedTuple):
    """A registration, and what may be expected of its process now."""

    row: InferenceReplica
    answers: bool
    """It is ready, and was heard of lately."""


def standing(session: Session) -> list[Standing]:
    """Return all registrations, in the order of their ids."""
    lately = func.clock_timestamp() - timedelta(seconds=SILENT_SECONDS)
    rows = session.execute(
        select(
            InferenceReplica, InferenceReplica.ready & (InferenceReplica.beat_at > lately)
        ).order_by(InferenceReplica.id)
    )
    return [Standing(*row) for row in rows]


def serves_as_described(row: InferenceReplica, entry: BaseModelEntry) -> bool:
    """Say whether a process serves the very weights and the profile that ``entry`` describes."""
    return (row.base_sha256, row.profile_sha256) == (entry.base_sha256, entry.profile.sha256())


class Served(NamedTuple):
    """The processes of one base model."""

    answering: tuple[Replica, ...]
    silent: tuple[Replica, ...]
    """Starting, or not heard of lately."""

    @property
    def all(self) -> tuple[Replica, ...]:
        """Every one, those that answer first."""
        return self.answering + self.silent


def served(session: Session, catalog: Catalog) -> dict[str, Served]:
    """Return who serves each base model; a process that serves something else does not count."""
    found: dict[str, Served] = {}
    for row, answers in standing(session):
        if row.base_model not in catalog:
            continue
        if not serves_as_described(row, catalog.get(row.base_model)):
            continue
        replica = Replica(row.id, row.url, row.places, row.slots)
        before = found.get(row.base_model, Served((), ()))
        found[row.base_model] = (
            before._replace(answering=(*before.answering, replica))
            if answers
            else before._replace(silent=(*before.silent, replica))
        )
    return found
