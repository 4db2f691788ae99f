"""The scheduler's settings."""

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


class SchedulerSettings(
    SystemDatabaseSettings,
    BrokerSettings,
    StoreSettings,
    InferenceClientSettings,
    JobTimings,
    MetricsSettings,
):
    """One scheduler serves all queues; a second one does no harm."""

    orphan_seconds: Seconds = 24 * 3600
    """Folders without a row are removed at this age."""
    erase_batch: int = Field(20, ge=1)
    """So many adapters, and files, are erased in one sweep; the rest is left for the next."""
    validation_processes: int = Field(2, ge=1)
    """So many jobs' files are checked at once."""
    validation_seconds: Seconds = 1800
    """A check that takes longer, or so much processor time, is ended."""
    validation_memory_mb: int = Field(1500, ge=256)
    """Largest memory of one checking process."""
    validation_attempts: int = Field(3, ge=1)
    """A job whose check crashed so often fails."""
    validation_poll_seconds: Seconds = 0.25
    """New jobs, and cancellations of those being checked, are looked for this often."""
