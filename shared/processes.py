"""A process group, seen through psutil: who is in it, is it the recorded one, end all of it.

A recorded group is recognised by any recorded member (process id and start, same boot) that still
lives in it: a group's number cannot be given away before its last member is gone, so this holds
even when its leader is dead. Where none is left, the number may be somebody else's by now, and only
processes that run the recorded program are the group's, if there is one and no new leader.
"""

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

_TRACKER_GRACE_SECONDS = 2.0
_RECORD = "group.json"


class Process(NamedTuple):
    """A process that no later one can be mistaken for."""

    pid: int
    started: float
    """Seconds after boot, to a clock tick: unlike the time of day, it is never adjusted."""


@dataclass(frozen=True)
class GroupRecord:
    """A process group as it was when it was written down."""

    boot: str
    pgid: int
    members: tuple[Process, ...]
    program: str = ""
    """The executable; without it, a group is not known any more when these members are gone."""


def find_process(pid: int) -> Process | None:
    """Return the living process ``pid``; a zombie has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
            return None
        return Process(pid, round(process.create_time() - psutil.boot_time(), 2))
    except psutil.NoSuchProcess:
        return None


def group_members(pgid: int) -> frozenset[Process]:
    """Return the living processes of a group."""
    pids = [pid for pid in psutil.pids() if _group_of(pid) == pgid]
    return frozenset(member for pid in pids if (member := find_process(pid)))


def end_group(pgid: int, timeout: float = 15) -> None:
    """Kill every member of a group and wait until none is left.

    Python's resource tracker goes last: with the others gone it unlinks their shared memory.
    Raises TimeoutError when a member survives.
    """
    deadline = time.monotonic() + timeout
    trackers_until = time.monotonic() + _TRACKER_GRACE_SECONDS
    while members := group_members(pgid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(m.pid for m in members)} cannot be killed")
        for member in members:
            if not _is_tracker(member.pid) or time.monotonic() > trackers_until:
                with suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
        time.sleep(0.05)


def write_record(path: Path, record: GroupRecord) -> None:
    """Write ``record`` to ``path``, all of it or nothing."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(asdict(record)))
    unfinished.rename(path)


def read_record(path: Path) -> GroupRecord | None:
    """Return the record at ``path``; None where there is none that can be read."""
    try:
        record = json.loads(path.read_bytes())
        members = tuple(Process(*member) for member in record.pop("members"))
        return GroupRecord(**record, members=members)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def living_members(record: GroupRecord) -> frozenset[Process]:
    """Return the processes of the recorded group; none if its number was given away."""
    if record.boot != boot_id():
        return frozenset()
    members = group_members(record.pgid)
    if members.intersection(record.members):
        return members
    if not record.program or record.pgid in {member.pid for member in members}:
        return frozenset()
    return frozenset(member for member in members if _runs(member.pid, record.program))


def record_group(state_dir: Path, pgid: int, members: frozenset[Process]) -> None:
    """Note the running group, so that whoever starts next can end it."""
    write_record(state_dir / _RECORD, GroupRecord(boot_id(), pgid, tuple(sorted(members))))


def end_recorded_group(state_dir: Path) -> None:
    """End the group that an earlier run left behind, if it is still there, and its record."""
    path = state_dir / _RECORD
    record = read_record(path)
    if record is not None and living_members(record):
        end_group(record.pgid)
    path.unlink(missing_ok=True)


def boot_id() -> str:
    """Return what tells this boot of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:  # ended since it was listed
        return None


def _is_tracker(pid: int) -> bool:
    try:
        return "resource_tracker" in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _runs(pid: int, program: str) -> bool:
    try:
        return Path(psutil.Process(pid).exe()) == Path(program).resolve()
    except psutil.Error:
        return False
