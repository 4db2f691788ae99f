"""The comparer's settings."""

from pydantic import Field

from shared.settings import (
    BrokerSettings,
    CacheSaltSettings,
    InferenceClientSettings,
    JobTimings,
    ServedModelSettings,
    StoreSettings,
    SystemDatabaseSettings,
)


class ComparerSettings(
    SystemDatabaseSettings,
    BrokerSettings,
    StoreSettings,
    InferenceClientSettings,
    CacheSaltSettings,
    ServedModelSettings,
    JobTimings,
):
    """One comparer: the queue ``compare``, comparisons of the base model that is served."""

    comparer_in_flight: int = Field(16, ge=1)
    """Questions at the inference service at a time, of the slots that a tenant may hold."""
