"""A one-way flag shared with forked children: a pipe made before the fork.

SIGTERM in the main process writes one byte that nobody reads, so every child sees it set, also one
forked later.
"""

import os
from multiprocessing.connection import wait


class Drain:
    """A flag that is set once in the main process and seen in its children."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def fileno(self) -> int:
        """Let ``wait`` wait for the flag."""
        return self._read

    def request(self) -> None:
        """Set the flag; safe inside a signal handler."""
        os.write(self._write, b"!")

    def requested(self) -> bool:
        """Say whether the flag is set."""
        return bool(wait([self._read], 0))
