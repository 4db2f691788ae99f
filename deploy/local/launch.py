"""``python -m deploy.local.launch SPEC``: record this process, then become the program.

The spec (JSON, private) carries the environment, so that no secret stands in supervisord's
configuration or on a command line. A program that keeps dying is started at most once a second,
which keeps supervisord's growing back-off out of play.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.local.records import record_self
from shared.processes import read_record

SECONDS_BETWEEN_STARTS = 1.0


@dataclass(frozen=True)
class LaunchSpec:
    """One program: what to run, with which environment, as whom, where."""

    argv: list[str]
    env: dict[str, str] = field(repr=False)
    cwd: str
    record: str
    uid: int | None = None
    gid: int | None = None


def write_spec(path: Path, spec: LaunchSpec) -> None:
    """Write ``spec`` so that only we can read it."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(spec)))


def main() -> None:
    """Read the spec named on the command line and become its program."""
    spec = LaunchSpec(**json.loads(Path(sys.argv[1]).read_bytes()))
    record = Path(spec.record)
    earlier = read_record(record)
    mine = record_self(record, spec.argv[0])
    if earlier is not None:
        elapsed = mine.started - earlier.members[0].started
        if 0 <= elapsed < SECONDS_BETWEEN_STARTS:
            time.sleep(SECONDS_BETWEEN_STARTS - elapsed)
    os.chdir(spec.cwd)
    if spec.uid is not None and spec.gid is not None:
        os.setgroups([])
        os.setgid(spec.gid)
        os.setuid(spec.uid)
    os.execve(spec.argv[0], spec.argv, spec.env)  # noqa: S606  the spec is ours


if __name__ == "__main__":
    main()
