"""The memory of the processes that a benchmark starts, directly or not, while they run."""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

WATCH_SECONDS = 0.1


@dataclass
class Peak:
    """The largest a process was, in bytes."""

    resident: int = 0
    """The kernel's own count (VmHWM): nothing between two looks is missed."""
    anonymous: int = 0
    """What no file backs, at the looks: mapped weights and rows are left out."""
    processor_seconds: float = 0.0


class Watch(threading.Thread):
    """Watches every descendant that runs as ``python -m MODULE``, by module."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[str, Peak] = {}
        self._left = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self.join()

    def run(self) -> None:
        """Look again and again until the block is left."""
        while not self._left.wait(WATCH_SECONDS):
            for process in psutil.Process().children(recursive=True):
                # It may end while it is looked at.
                with contextlib.suppress(psutil.Error, OSError, KeyError):
                    self._look(process)

    def _look(self, process: psutil.Process) -> None:
        words = process.cmdline()
        if "-m" not in words:
            return
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        sizes = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
        peak = self.peaks.setdefault(words[words.index("-m") + 1], Peak())
        peak.resident = max(peak.resident, int(sizes["VmHWM"][0]) << 10)
        used = process.cpu_times()
        peak.processor_seconds = max(peak.processor_seconds, used.user + used.system)
        peak.anonymous = max(peak.anonymous, int(sizes["RssAnon"][0]) << 10)
