"""Who runs: each program records itself, so that a later ``tailor up`` can end leftovers.

A program leads its process group. A number that was reused belongs to somebody else and is never
signalled (shared/processes.py).
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from shared.processes import (
    GroupRecord,
    Process,
    boot_id,
    find_process,
    living_members,
    write_record,
)

POLL_SECONDS = 0.05


def record_self(path: Path, program: str) -> Process:
    """Write the record of this process, which leads its group, and return what it is known by."""
    leader = find_process(os.getpid())
    assert leader is not None  # noqa: S101  it is running this line
    write_record(path, GroupRecord(boot_id(), os.getpgrp(), (leader,), program))
    return leader


def leader_lives(record: GroupRecord) -> bool:
    """Say whether the recorded process itself still runs."""
    return record.boot == boot_id() and find_process(record.pgid) in record.members


def end(record: GroupRecord, stop_signal: signal.Signals, grace_seconds: float) -> None:
    """Ask the group's leader to stop; kill what still lives after ``grace_seconds``."""
    if leader_lives(record):
        _signal(record.pgid, stop_signal)
        _wait_for_end(record, grace_seconds)
    for member in living_members(record):
        _signal(member.pid, signal.SIGKILL)
    _wait_for_end(record, grace_seconds)


def _wait_for_end(record: GroupRecord, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while living_members(record) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
