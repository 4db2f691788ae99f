"""Gives up on inference processes that show no sign of life, as on workers that stopped renewing.

Files of a deleted adapter wait for every registered process, so one that is gone for good must not
be registered for ever. One that was only cut off learns of it with its next sign, and starts anew.
"""

import logging

from sqlalchemy import Engine

from services.scheduler.reap import LeaseWatch
from shared.clock import Clock
from shared.db import transaction
from shared.replicas import registry
from shared.replicas.registry import Beat
from shared.telemetry import log_event

log = logging.getLogger(__name__)


class ReapReplicas:
    """The duty."""

    name = "reap_replicas"

    def __init__(self, engine: Engine, watch: LeaseWatch[Beat], clock: Clock) -> None:
        self._engine = engine
        self._watch = watch
        self._clock = clock

    def run(self) -> None:
        """Scan, and end the registrations that were silent for a whole window."""
        for beat in self._watch.scan(self._engine, self._clock, registry.beats):
            with transaction(self._engine) as session:
                expired = registry.expire(session, beat)
            if expired:
                data = {"replica_id": beat.id}
                log.warning("replica silent", extra=log_event("replica_expired", **data))
