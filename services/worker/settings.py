"""The worker's settings."""

import os
from pathlib import Path

from pydantic import Field

from shared.settings import (
    BrokerSettings,
    InferenceClientSettings,
    JobTimings,
    MetricsSettings,
    Seconds,
    StoreSettings,
    SystemDatabaseSettings,
)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


class WorkerSettings(
    SystemDatabaseSettings,
    BrokerSettings,
    StoreSettings,
    InferenceClientSettings,
    JobTimings,
    MetricsSettings,
):
    """One worker: one queue, one trainer process, jobs of the base models that are served."""

    worker_queue: str = "default"
    worker_base_models: tuple[str, ...] = ()
    """The base models whose jobs it takes, of those that are served; empty: every one."""
    trainer_threads: int = Field(default_factory=usable_cores, ge=1)
    """Bit-for-bit resumption needs the same number; with another a job goes on and says so."""
    trainer_processes: int = Field(1, ge=1)
    """That train one job together on this machine, a GPU each; without GPUs they share the threads.
    With another number a resumed job goes on and says so."""
    scratch_dir: Path | None = None
    """Where large temporary files of a job go, on a fast disk; unset: into the attempt's folder in
    the store. They have no names and vanish with the process."""
    trainer_jobs: int = Field(50, ge=1)
    """The trainer process is replaced after so many jobs."""
    trainer_start_seconds: Seconds = 900
    """A trainer that has said nothing of its job by then, its weights loaded or not, is killed."""
    trainer_silence_seconds: Seconds = 300
    """Later it speaks after every step and while it prepares; a longer silence is a crash."""
    abort_grace_seconds: Seconds = 2
    """A cancelled trainer is killed after this; with the heartbeat it stays well under 10 s."""
    stop_grace_seconds: Seconds = 45
    """A drained trainer has this long for its checkpoint, of the supervisor's 60 s."""
