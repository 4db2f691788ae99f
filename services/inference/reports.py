"""What the parts of one run say about themselves, as small files in the state folder.

vLLM logs and ignores a plugin that fails to import. So nothing is taken for granted: the resolver,
the CPU operation, the tokenizer and the supervisor's health check each leave a report, emptied
before every start.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Literal

Part = Literal["resolver", "cpu_lora", "plain_text", "canary"]


class Reports:
    """The reports of the engine that is running now."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "reports"

    def clear(self) -> None:
        """Begin a new run; only when no process of the last one is alive."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def write(self, part: Part) -> None:
        """Say that ``part`` works in this process, now."""
        path = self._folder / f"{part}-{os.getpid()}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"at": time.monotonic()}))
        temporary.rename(path)

    def reported(self, part: Part, pid: int | None = None) -> bool:
        """Say whether any process, or the one called ``pid``, has reported ``part``."""
        return any(self._folder.glob(f"{part}-{pid or '*'}.json"))

    def age(self, part: Part) -> float:
        """Seconds since the newest report of ``part``; infinity when there is none."""
        times = [json.loads(p.read_text())["at"] for p in self._folder.glob(f"{part}-*.json")]
        # The monotonic clock is one for all processes since boot.
        return time.monotonic() - max(times) if times else float("inf")
