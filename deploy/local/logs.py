"""Reading the services' logs: their ends, and what is being written, across rotation."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

FOLLOW_SECONDS = 0.2
TAIL_BYTES = 256 * 1024


def tail(path: Path, lines: int) -> list[str]:
    """Return the last ``lines`` lines of a log; none where there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def follow(paths: dict[str, Path], going_on: Callable[[], bool]) -> Iterator[tuple[str, str]]:
    """Yield name and line for everything appended to ``paths`` while ``going_on()`` holds."""
    readers = {name: _Appended(path) for name, path in paths.items()}
    last_round = False
    while not last_round:
        last_round = not going_on()
        for name, reader in readers.items():
            for line in reader.lines():
                yield name, line
        time.sleep(FOLLOW_SECONDS)


class _Appended:
    """What is appended to one file from now on; a rotated file is read from its start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._inode, self._offset = self._found()

    def lines(self) -> list[str]:
        inode, size = self._found()
        if inode != self._inode or size < self._offset:
            self._inode, self._offset, self._rest = inode, 0, b""
        if size == self._offset:
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = self._rest + file.read()
                self._offset = file.tell()
        except FileNotFoundError:
            return []  # just rotated away; the next look finds the new one
        *whole, self._rest = data.split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def _found(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size
