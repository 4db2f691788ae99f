"""Answers built anew, key by key, from the inference service's: no internal name gets through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Json = Mapping[str, Any]
FINISH_REASONS = {"stop", "length", "content_filter"}


@dataclass(frozen=True)
class Shape:
    """One of the two kinds of completion: where it lives and how its answers look."""

    path: str
    texts: Literal["messages", "prompt"]
    """The parameter that holds what the model reads."""
    id_prefix: str
    whole: Literal["chat.completion", "text_completion"]
    chunk: Literal["chat.completion.chunk", "text_completion"]
    whole_choice: Callable[[Json], dict[str, Any]]
    chunk_choice: Callable[[Json], dict[str, Any]]


@dataclass(frozen=True)
class Label:
    """What every piece of one answer carries."""

    id: str
    created: int
    model: str
    """The public name, as the caller wrote it."""


def whole(shape: Shape, label: Label, upstream: Json) -> dict[str, Any]:
    """Rebuild a complete answer."""
    return _envelope(label, shape.whole) | {
        "choices": [shape.whole_choice(choice) for choice in upstream["choices"]],
        "usage": usage(upstream.get("usage")),
    }


def chunk(shape: Shape, label: Label, upstream: Json) -> dict[str, Any]:
    """Rebuild one piece of a streamed answer, without usage."""
    choices = [shape.chunk_choice(choice) for choice in upstream.get("choices", [])]
    return _envelope(label, shape.chunk) | {"choices": choices}


def usage_chunk(shape: Shape, label: Label, counted: Json | None) -> dict[str, Any]:
    """Build the last piece for a caller who asked for usage."""
    return _envelope(label, shape.chunk) | {"choices": [], "usage": usage(counted)}


def usage(counted: Json | None) -> dict[str, int]:
    """Return OpenAI's three counts."""
    counts = counted or {}
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: int(counts.get(name) or 0) for name in names}


def _envelope(label: Label, kind: str) -> dict[str, Any]:
    return {
        "id": label.id,
        "object": kind,
        "created": label.created,
        "model": label.model,
        "system_fingerprint": None,
    }


def _chat_choice(choice: Json) -> dict[str, Any]:
    content = choice["message"].get("content") or ""
    message = {"role": "assistant", "content": content, "refusal": None}
    return {"index": choice["index"], "message": message} | _ending(choice, _chat_logprobs)


def _chat_chunk_choice(choice: Json) -> dict[str, Any]:
    upstream = choice.get("delta", {})
    delta = {key: upstream[key] for key in ("role", "content") if upstream.get(key) is not None}
    return {"index": choice["index"], "delta": delta} | _ending(choice, _chat_logprobs)


def _text_choice(choice: Json) -> dict[str, Any]:
    return {"index": choice["index"], "text": choice.get("text") or ""} | _ending(
        choice, _text_logprobs
    )


def _ending(choice: Json, logprobs: Callable[[Json], dict[str, Any]]) -> dict[str, Any]:
    reason = choice.get("finish_reason")
    found = choice.get("logprobs")
    return {
        "logprobs": logprobs(found) if found else None,
        "finish_reason": reason if reason in FINISH_REASONS else None,
    }


def _chat_logprobs(found: Json) -> dict[str, Any]:
    tokens = [
        _token(token) | {"top_logprobs": [_token(other) for other in token["top_logprobs"]]}
        for token in found.get("content") or []
    ]
    return {"content": tokens, "refusal": None}


def _token(token: Json) -> dict[str, Any]:
    return {key: token.get(key) for key in ("token", "logprob", "bytes")}


def _text_logprobs(found: Json) -> dict[str, Any]:
    keys = ("text_offset", "token_logprobs", "tokens", "top_logprobs")
    return {key: found.get(key) for key in keys}


CHAT = Shape(
    "/v1/chat/completions",
    "messages",
    "chatcmpl-",
    "chat.completion",
    "chat.completion.chunk",
    _chat_choice,
    _chat_chunk_choice,
)
TEXT = Shape(
    "/v1/completions",
    "prompt",
    "cmpl-",
    "text_completion",
    "text_completion",
    _text_choice,
    _text_choice,
)
