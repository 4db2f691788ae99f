"""A process group, seen through /proc: who is in it, is it ours, end all of it.

A recorded group is killed only while one of its recorded members (process id and start time, same
boot) still lives in it: a group's number cannot be given away before its last member is gone, so
this proves that the group is the recorded one even when its leader is dead.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_TRACKER_GRACE_SECONDS = 2.0
_RECORD = "group.json"


class Process(NamedTuple):
    """A process that no later one can be mistaken for."""

    pid: int
    started: int
    """Clock ticks after boot."""


def group_members(pgid: int) -> frozenset[Process]:
    """Return the living processes of a group; a zombie has ended."""
    members = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(errors="replace")
        except OSError:  # ended between the listing and the reading
            continue
        # The second field is the name in parentheses and may itself hold spaces and parentheses.
        fields = text[text.rindex(")") + 2 :].split()
        if int(fields[2]) == pgid and fields[0] not in "ZX":
            members.add(Process(int(stat.parent.name), int(fields[19])))
    return frozenset(members)


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
                _kill(member.pid)
        time.sleep(0.05)


def record_group(state_dir: Path, pgid: int, members: frozenset[Process]) -> None:
    """Note the running group, so that whoever starts next can end it."""
    record = {"boot": _boot_id(), "pgid": pgid, "members": sorted(members)}
    temporary = state_dir / f".{_RECORD}"
    temporary.write_text(json.dumps(record))
    temporary.rename(state_dir / _RECORD)


def end_recorded_group(state_dir: Path) -> None:
    """End the group that an earlier run left behind, if it is still there, and its record."""
    path = state_dir / _RECORD
    if not path.exists():
        return
    try:
        record = json.loads(path.read_text())
    except ValueError:  # cut short by a power failure, so from before this boot
        record = {"boot": None}
    if record["boot"] == _boot_id():
        recorded = {Process(pid, started) for pid, started in record["members"]}
        if recorded & group_members(record["pgid"]):
            end_group(record["pgid"])
    path.unlink()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, its parent, ends; exit if it has ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process has ended")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _is_tracker(pid: int) -> bool:
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
