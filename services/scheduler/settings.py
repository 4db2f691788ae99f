"""The scheduler's settings."""

from pathlib import Path

from pydantic import Field

from shared.settings import (
    BrokerSettings,
    InferenceClientSettings,
    JobTimings,
    Seconds,
    ServedModelSettings,
    SystemDatabaseSettings,
)


class SchedulerSettings(
    SystemDatabaseSettings,
    BrokerSettings,
    InferenceClientSettings,
    ServedModelSettings,
    JobTimings,
):
    """One scheduler serves all queues; a second one does no harm."""

    store_dir: Path
    orphan_seconds: Seconds = 24 * 3600
    """Folders without a row are removed at this age."""
    erase_batch: int = Field(20, ge=1)
    """So many adapters, and files, are erased in one sweep; the rest is left for the next."""
