"""Who runs: each program records its process group, so a later ``tailor up`` can end leftovers.

A process is known by its number and its start time (clock ticks of one boot). A number that was
reused belongs to somebody else and is never signalled.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Record:
    """A process group and the process that leads it."""

    pgid: int
    started: int
    """Start time of the leader in clock ticks since boot, /proc/PID/stat field 22."""
    boot_id: str = ""
    program: str = ""
    """The executable; members of a group without its leader are ours only if they run it."""


def record_self(path: Path, program: str) -> Record:
    """Write the record of this process, which leads its group, and return it."""
    record = Record(os.getpgrp(), _started(os.getpid()) or 0, _boot_id(), program)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(asdict(record)))
    unfinished.rename(path)
    return record


def read_record(path: Path) -> Record | None:
    """Return the record at ``path``; None where there is none that can be read."""
    try:
        return Record(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def leader_lives(record: Record) -> bool:
    """Say whether the recorded process itself still runs."""
    return _same_boot(record) and _started(record.pgid) == record.started


def living_members(record: Record) -> list[int]:
    """Return the processes of the recorded group; none if the number was reused."""
    if not _same_boot(record):
        return []
    leader_started = _started(record.pgid)
    if leader_started not in {None, record.started}:
        return []
    members = [
        pid
        for pid, pgid, started in _processes()
        if pgid == record.pgid and started >= record.started
    ]
    if leader_started is None and record.program:
        members = [pid for pid in members if _runs(pid, record.program)]
    return members


def end(record: Record, stop_signal: signal.Signals, grace_seconds: float) -> None:
    """Ask the group's leader to stop; kill what still lives after ``grace_seconds``."""
    if leader_lives(record):
        _signal(record.pgid, stop_signal)
        _wait_for_end(record, grace_seconds)
    for pid in living_members(record):
        _signal(pid, signal.SIGKILL)
    _wait_for_end(record, grace_seconds)


def _wait_for_end(record: Record, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while living_members(record) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _same_boot(record: Record) -> bool:
    return record.boot_id in {"", _boot_id()}


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else fields[1]


def _processes() -> Iterator[tuple[int, int, int]]:
    """Yield number, process group and start time of every living process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            yield int(entry.name), *fields


def _stat(pid: int) -> tuple[int, int] | None:
    """Return process group and start time; None for a process that is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself contain spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else (int(fields[2]), int(fields[19]))


def _runs(pid: int, program: str) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").readlink() == Path(program).resolve()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
