"""The process that reads one training file or document: limits first, then a report.

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
        reader = _READERS[asked["reader"]]
        print(reader(Path(asked["path"]), asked["filename"], Path(asked["target"])))  # noqa: T201
    except MemoryError:
        os._exit(MEMORY_EXIT)
    except OSError:
        os._exit(DISK_EXIT)


# What reads is imported under the limits.


def _training_file(path: Path, filename: str, rows_path: Path) -> str:
    from shared.files.rows import validate  # noqa: PLC0415

    return validate(path, filename, rows_path).model_dump_json()


def _document(path: Path, filename: str, passages_path: Path) -> str:
    from shared.files.documents.read import read_document  # noqa: PLC0415

    return read_document(path, filename, passages_path).model_dump_json()


_READERS = {"training_file": _training_file, "document": _document}


if __name__ == "__main__":
    main()
