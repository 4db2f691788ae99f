"""The comparer's settings, and those of the embedding model that it uses."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from shared.settings import (
    BrokerSettings,
    CacheSaltSettings,
    InferenceClientSettings,
    JobTimings,
    Seconds,
    StoreSettings,
    SystemDatabaseSettings,
    TailorSettings,
)


class EmbeddingSettings(TailorSettings):
    """The embedding model that retrieval uses: the bundled one, or an endpoint as OpenAI's."""

    embeddings_url: str | None = None
    """Base URL of an OpenAI-compatible server, such as ``http://embed:8000/v1``; unset: the small
    multilingual model that is installed with Tailor. Training rows and documents are sent there."""
    embeddings_model: str = ""
    """Name of the endpoint's model."""
    embeddings_api_key: SecretStr | None = None
    embeddings_query_prefix: str = ""
    """What the endpoint's model wants before a question, such as ``query: ``."""
    embeddings_passage_prefix: str = ""
    """The same before a text that is searched."""
    embeddings_answer_seconds: Seconds = 60
    embeddings_max_texts: int = Field(10_000, ge=0)
    """More rows or passages are searched by BM25 alone: the bundled model takes about 8 ms for a
    short row on two cores."""
    embeddings_threads: int = Field(2, ge=1)
    """Threads of the bundled model."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.embeddings_url and not self.embeddings_model:
            raise ValueError("TAILOR_EMBEDDINGS_URL needs TAILOR_EMBEDDINGS_MODEL")
        return self


class ComparerSettings(
    SystemDatabaseSettings,
    BrokerSettings,
    StoreSettings,
    InferenceClientSettings,
    CacheSaltSettings,
    JobTimings,
    EmbeddingSettings,
):
    """One comparer: the queue ``compare``, comparisons of the base models that are served."""

    comparer_in_flight: int = Field(16, ge=1)
    """Questions at the inference service at a time, of the slots that a tenant may hold."""
