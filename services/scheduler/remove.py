"""Removing what may not let itself be removed, and finding what has no row."""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from shared.clock import Clock
from shared.telemetry import log_event

AGAIN_SECONDS = 60.0
"""What could not be erased is tried again after this."""
SCANS = 24
"""So many times within the age of an orphan the store is searched for some: hourly for a day."""

log = logging.getLogger(__name__)


class Stuck:
    """What could not be erased lately, so that it does not stand before the others for ever."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def note(self, name: str, error: Exception) -> None:
        """Leave ``name`` alone for a while, and say so."""
        self._until[name] = self._clock() + AGAIN_SECONDS
        data = {"id": name, "reason": f"{type(error).__name__}: {error}"}
        log.warning("not erased; it is tried again", extra=log_event("not_erased", **data))

    def names(self) -> set[str]:
        """Return what is to be left alone now."""
        self._until = {n: until for n, until in self._until.items() if until > self._clock()}
        return set(self._until)

    def erased(self, name: str, erase: Callable[[], None]) -> bool:
        """Erase; say whether that worked."""
        try:
            erase()
        except (OSError, httpx.HTTPError) as error:
            self.note(name, error)
            return False
        return True


class OrphanScan:
    """Old folders without a row, found rarely and erased a few in each sweep."""

    def __init__(self, seconds: float, clock: Clock, find: Callable[[], list[str]]) -> None:
        self._interval = seconds / SCANS
        self._clock = clock
        self._find = find
        self._due = -math.inf
        self._left: list[str] = []

    def some(self, batch: int) -> list[str]:
        """Return the next orphans; looks for new ones at start and then once in a while."""
        if not self._left and self._clock() >= self._due:
            self._due = self._clock() + self._interval
            self._left = self._find()
        now, self._left = self._left[:batch], self._left[batch:]
        return now


def entries(folder: Path) -> list[Path]:
    """Return what lies in ``folder``; nothing where there is none."""
    return list(folder.iterdir()) if folder.is_dir() else []


def older_than(folder: Path, seconds: float) -> list[str]:
    """Return the names in ``folder`` that have not changed for ``seconds``."""
    limit = time.time() - seconds
    names = []
    for path in entries(folder):
        try:
            if path.stat().st_mtime < limit:
                names.append(path.name)
        except FileNotFoundError:
            continue
    return names


def remove(path: Path) -> None:
    """Remove a file or a folder, as much of it as can be; raise OSError while anything is left."""
    errors: list[BaseException] = []
    if path.is_dir():
        shutil.rmtree(path, onerror=lambda _function, _path, found: errors.append(found[1]))
    else:
        path.unlink(missing_ok=True)
    if os.path.lexists(path):
        raise errors[0] if errors else OSError("something is left of it")
