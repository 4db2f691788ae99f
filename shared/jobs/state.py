"""The job state machine: one table, read by the one door in transitions.py."""

from enum import StrEnum


class State(StrEnum):
    """Where a job is. Terminal states are never left."""

    VALIDATING = "validating"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PUBLISHING = "publishing"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


S = State
TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
LEASED = frozenset({S.STARTING, S.RUNNING, S.PUBLISHING, S.PAUSING, S.CANCELLING})
"""A worker holds the job and must renew its lease."""

SOURCES: dict[State, frozenset[State]] = {
    S.QUEUED: frozenset({S.VALIDATING, S.STARTING, S.RUNNING, S.PUBLISHING, S.PAUSED}),
    S.STARTING: frozenset({S.QUEUED}),
    S.RUNNING: frozenset({S.STARTING}),
    S.PUBLISHING: frozenset({S.STARTING, S.RUNNING}),
    S.SUCCEEDED: frozenset({S.PUBLISHING}),
    S.PAUSING: frozenset({S.STARTING, S.RUNNING}),
    S.PAUSED: frozenset({S.PAUSING, S.QUEUED, S.PUBLISHING}),
    S.CANCELLING: frozenset({S.STARTING, S.RUNNING, S.PUBLISHING, S.PAUSING}),
    S.CANCELLED: frozenset({S.VALIDATING, S.QUEUED, S.PAUSED, S.CANCELLING}),
    S.FAILED: frozenset({S.VALIDATING, S.QUEUED, S.STARTING, S.RUNNING, S.PUBLISHING}),
}
"""To each state, the states it may be entered from."""

PUBLIC = {
    S.VALIDATING: "validating_files",
    S.QUEUED: "queued",
    S.STARTING: "running",
    S.RUNNING: "running",
    S.PUBLISHING: "running",
    S.PAUSING: "running",
    S.PAUSED: "paused",
    S.CANCELLING: "running",
    S.SUCCEEDED: "succeeded",
    S.FAILED: "failed",
    S.CANCELLED: "cancelled",
}
"""OpenAI's status names."""
