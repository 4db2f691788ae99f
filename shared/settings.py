"""Settings that several services compose: typed, frozen, read from ``TAILOR_*`` once at the entry.

Nothing here has a default secret. A list is written as JSON, a duration in seconds.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0)]


class TailorSettings(BaseSettings):
    """What every settings class shares: the prefix, and that it never changes once built."""

    # An error shows the name of what is wrong, not the input: that may be a secret.
    model_config = SettingsConfigDict(
        env_prefix="TAILOR_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    log_level: str = "INFO"


class SystemDatabaseSettings(TailorSettings):
    """Access as ``tailor_system``: key look-up, admin, worker, scheduler."""

    system_database_url: SecretStr
    """SQLAlchemy URL, ``postgresql+psycopg://tailor_system:…@/tailor?host=…``."""
    database_answer_seconds: Seconds = 15
    """A statement, commit or connection that takes longer is given up and tried again later."""


class BrokerSettings(TailorSettings):
    """Where the doorbells ring."""

    broker_url: SecretStr
    """Celery broker URL, ``redis://:password@host:port/0`` or ``redis+socket:///path``."""


class StoreSettings(TailorSettings):
    """Where uploads, attempts and adapters live, and the base models' weights."""

    store_dir: Path
    models_dir: Path
    """One folder per catalog name, made by ``make setup``."""


TENANT_HEADER = "x-tailor-tenant"
"""Tells the inference service for whom a request is; only the gateway sends it."""


class InferenceClientSettings(TailorSettings):
    """What opens the inference processes; where they are is in the database."""

    inference_secret: SecretStr


class CacheSaltSettings(TailorSettings):
    """What keeps the tenants' prefix caches apart."""

    cache_salt_key: SecretStr
    """Every process that asks the inference service for a tenant must have the same one."""


class MetricsSettings(TailorSettings):
    """Where a service without HTTP of its own serves its metrics."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """None: nowhere."""
    metrics_secret: SecretStr | None = None
    """What Prometheus sends as ``Authorization: Bearer``; it opens nothing else."""

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.metrics_port is not None and not self.metrics_secret:
            raise ValueError("TAILOR_METRICS_PORT needs TAILOR_METRICS_SECRET")
        return self


class JobTimings(TailorSettings):
    """The job protocol's clocks."""

    heartbeat_seconds: Seconds = 5
    """The supervisor renews its lease this often."""
    lease_window_seconds: Seconds = 30
    """A lease unchanged for this long of unbroken observation is expired."""
    scan_gap_seconds: Seconds = 10
    """A gap between two scans longer than this restarts every observation window."""
    scheduler_interval_seconds: Seconds = 5
    rering_age_seconds: Seconds = 10
    """A queued job unclaimed for this long is rung for again."""
    crash_backoff_seconds: tuple[Seconds, ...] = (10, 60, 300)
    """Waiting time after the first, second, third crash of the trainer, each ±20 %."""
    watchdog_seconds: Seconds = 60
    """Idle, with rings outstanding and Redis reachable, for this long: the worker exits."""
    checkpoint_seconds: Seconds = 120
    """A checkpoint is saved at least this often, and at the end of every epoch."""
    publish_retry_seconds: Seconds = 5
    publish_wait_seconds: Seconds = 600
    """How long publication waits, keeping its lease, for an inference service that is away."""
    publish_ask_seconds: Seconds = 60
    """So long the new model is asked held-out questions; answers that come later do not count."""
    publish_give_up_seconds: Seconds = 24 * 3600
    """After so long of such attempts a trained job is paused; its adapter is kept."""
