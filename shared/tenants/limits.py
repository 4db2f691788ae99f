"""How much a tenant may use: the deployment's defaults, and each tenant's own numbers over them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shared.settings import TailorSettings

Amount = Annotated[int, Field(ge=0, le=2**53)]


class Limits(BaseModel):
    """One tenant's limits; nought closes a thing to it."""

    model_config = ConfigDict(frozen=True)

    requests_per_minute: Amount
    """Completions, chats among them."""
    tokens_per_minute: Amount
    """Read and written by completions."""
    concurrent_requests: Amount
    """Completions that wait or run at the same time, in each API process."""
    queued_jobs: Amount
    """Fine-tuning jobs that no worker has taken yet."""
    stored_bytes: Amount
    """Of all its files together."""


class OwnLimits(BaseModel):
    """What an administrator sets for one tenant; what is absent or null is the deployment's."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"requests_per_minute": 600, "queued_jobs": 10}]},
    )

    requests_per_minute: Amount | None = None
    tokens_per_minute: Amount | None = None
    concurrent_requests: Amount | None = None
    queued_jobs: Amount | None = None
    stored_bytes: Amount | None = None


class LimitSettings(TailorSettings):
    """The limits of a tenant that has none of its own."""

    limit_requests_per_minute: Amount = 3_000
    limit_tokens_per_minute: Amount = 1_000_000
    limit_concurrent_requests: Amount = 256
    limit_queued_jobs: Amount = 100
    limit_stored_bytes: Amount = 50 * 2**30

    def limits_of(self, own: dict[str, Any] | None) -> Limits:
        """Return the limits of a tenant whose row says ``own``."""
        names = Limits.model_fields
        defaults = {name: getattr(self, f"limit_{name}") for name in names}
        return Limits(**defaults | {k: v for k, v in (own or {}).items() if v is not None})
