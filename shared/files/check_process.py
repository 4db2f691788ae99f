"""The process that reads one training file: limits first, then a request in, a report out.

Started as ``python -m shared.files.check_process PARENT_PID``. A JSON object on stdin names the
paths, the user's file name and the limits; the report leaves as JSON on stdout. Other people's
files are read here and nowhere else on a server, so that one of them can hold up only itself.
"""

import json
import os
import resource
import sys
from pathlib import Path

from shared.parent_death import die_with

MEMORY_EXIT = 3
"""The file needed more memory than the limit."""
DISK_EXIT = 4
"""The normalised rows could not be written."""
_NICE = 15
"""Chats go first: their processes run at 0."""


def main() -> None:
    """Check the file that stdin names and print its report."""
    die_with(int(sys.argv[1]))
    asked = json.load(sys.stdin)
    os.nice(_NICE)
    cpu, memory = asked["cpu_seconds"], asked["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _check(Path(asked["path"]), asked["filename"], Path(asked["rows_path"]))
    except MemoryError:
        os._exit(MEMORY_EXIT)
    except OSError:
        os._exit(DISK_EXIT)


def _check(path: Path, filename: str, rows_path: Path) -> None:
    from shared.files.rows import validate  # noqa: PLC0415  loaded under the limits

    print(validate(path, filename, rows_path).model_dump_json())  # noqa: T201  its one answer


if __name__ == "__main__":
    main()
