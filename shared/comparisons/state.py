"""The state machine of a comparison: one table, read by the one door in transitions.py."""

from enum import StrEnum


class State(StrEnum):
    """Where a comparison is. Terminal states are never left."""

    WAITING = "waiting"
    """The job whose model it will ask has not ended."""
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


S = State
TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
LEASED = frozenset({S.RUNNING, S.CANCELLING})
"""A comparer holds it and must renew its lease."""
NOT_STARTED = frozenset({S.WAITING, S.QUEUED})

SOURCES: dict[State, frozenset[State]] = {
    S.QUEUED: frozenset({S.WAITING, S.RUNNING}),
    S.RUNNING: frozenset({S.QUEUED}),
    S.CANCELLING: frozenset({S.RUNNING}),
    S.SUCCEEDED: frozenset({S.RUNNING}),
    S.FAILED: frozenset({S.WAITING, S.QUEUED, S.RUNNING}),
    S.CANCELLED: frozenset({S.WAITING, S.QUEUED, S.CANCELLING}),
}
"""To each state, the states it may be entered from."""

PUBLIC = {state: "running" if state is S.CANCELLING else state.value for state in S}
"""What the client reads in ``status``."""
