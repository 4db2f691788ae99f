"""Settings of the API process, read once by ``__main__``."""

from typing import Annotated, Self

from pydantic import Field, IPvAnyNetwork, SecretStr, StringConstraints, model_validator

from shared.settings import (
    BrokerSettings,
    CacheSaltSettings,
    InferenceClientSettings,
    Seconds,
    StoreSettings,
    SystemDatabaseSettings,
)
from shared.tenants.limits import LimitSettings

Origin = Annotated[str, StringConstraints(pattern=r"^(\*|null|https?://[A-Za-z0-9.:*\[\]-]+)$")]
"""As browsers send it: scheme, host and perhaps port, without a slash at the end."""


class ApiSettings(
    SystemDatabaseSettings,
    BrokerSettings,
    StoreSettings,
    InferenceClientSettings,
    CacheSaltSettings,
    LimitSettings,
):
    """Everything the API needs to know."""

    database_url: SecretStr
    """SQLAlchemy URL of the role ``tailor_api``, which sees one tenant's rows at a time."""
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    admin_host: str = "127.0.0.1"
    admin_port: int | None = Field(None, ge=1, le=65535)
    """Where /admin and /metrics are answered, and nothing else; unset: on the one port."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses and networks of proxies whose ``X-Forwarded-For`` says who the client is."""
    database_connections: int = Field(20, ge=1)
    """Of each role; a peak may open ten more."""

    upload_max_bytes: int = Field(512 * 2**20, ge=1)
    """Of the file itself; OpenAI's limit."""
    min_free_bytes: int = Field(256 * 2**20, ge=0)
    """Uploads are refused where they would leave less of the disk; jobs need it, too."""
    json_max_bytes: int = Field(2 * 2**20, ge=1024)
    """Of a JSON body, before and after it is unpacked."""
    receive_seconds: Seconds = 30
    """The headers of a request must arrive within this, and then once more a JSON body."""
    max_connections: int = Field(2000, ge=1)
    """Open at a time in one process; further ones are answered 503 and closed."""
    upload_idle_seconds: Seconds = 30
    """An upload of which nothing arrives for this long is ended."""
    upload_min_bytes_per_second: int = Field(1024, ge=1)
    """An upload that has become slower than this on average is ended."""
    file_checks: int = Field(1, ge=1)
    """Training files read at a time by one API process, each in a process of its own."""
    file_check_wait_seconds: Seconds = 60
    """How long an upload waits for its turn to be read."""
    file_check_seconds: Seconds = 300
    """Longest time that reading one training file may take."""
    file_check_cpu_seconds: int = Field(120, ge=1)
    """Most processor time that reading one training file may take."""
    file_check_memory_bytes: int = Field(2**30, ge=2**27)
    """Most memory that reading one training file may take."""
    cors_origins: tuple[Origin, ...] = ("http://localhost:*", "http://127.0.0.1:*")
    """Origins whose pages may call the API from a browser; a * stands for any part, * alone for
    every page. Empty: none."""
    key_cache_seconds: Seconds = 5
    """How long a revoked key may still work."""
    retry_window_seconds: Seconds = 120
    """A retried create without an Idempotency-Key finds what its first try made this long ago."""

    default_max_tokens: int = Field(512, ge=1)
    """Length of an answer when the caller names none."""
    stream_stall_seconds: Seconds = 30
    """A stream ends when its reader has taken nothing of what waits for it for this long."""
    inference_timeout_seconds: Seconds = 600
    """Longest silence of the inference service within one answer."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.admin_port == self.api_port:
            raise ValueError("admin_port must be another port than api_port")
        return self
