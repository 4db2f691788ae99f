"""The inference service over HTTP: requests out, whole answers in, its errors translated.

An error's text may name the adapter inside; it leaves with the model's public name.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.api.completions.answers import Shape
from shared.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    RateLimited,
    TailorError,
    UpstreamUnavailable,
)
from shared.ids import ADAPTER_ID
from shared.inference import TOO_LONG_PARAMS

REFUSALS = {"adapter_refused", "base_not_served"}
"""Codes of our own guard for an adapter that exists and must not be served."""

_INTERNAL_NAMES = re.compile(r" \(parameter=\w+, value=[^()]*\)$")
"""What vLLM adds to its messages; callers know the parameter by another name."""


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer together are longer than the model's context."""

    default_code = "context_length_exceeded"


def away() -> UpstreamUnavailable:
    """Build the error for an inference service that does not answer."""
    return UpstreamUnavailable(
        "The inference service cannot be reached; try again shortly.", code="inference_unavailable"
    )


@asynccontextmanager
async def posted(
    client: httpx.AsyncClient,
    url: str,
    shape: Shape,
    body: Mapping[str, Any],
    model: str,
    *,
    headers: Mapping[str, str],
) -> AsyncIterator[httpx.Response]:
    """Send a request to ``url`` and yield the answer, its body unread; leaving aborts it there.

    Raises what the caller should see, speaking of ``model``, for any answer but 200.
    """
    request = client.build_request("POST", url + shape.path, json=body, headers=headers)
    try:
        response = await client.send(request, stream=True)
    except httpx.TransportError as error:
        raise away() from error
    try:
        if response.status_code != 200:
            raise error_of(response.status_code, await _whole(response), model, shape.texts)
        yield response
    finally:
        await response.aclose()


async def read_whole(response: httpx.Response) -> dict[str, Any]:
    """Read a complete JSON answer."""
    answer = await _whole(response)
    if "choices" not in answer:
        raise away()
    return answer


def error_of(
    status: int, answer: Mapping[str, Any], model: str, texts: str = "messages"
) -> TailorError:
    """Translate an error of the inference service; ``texts`` is the parameter that is too long."""
    error = answer.get("error")
    fields: Mapping[str, Any] = error if isinstance(error, dict) else {}
    message = ADAPTER_ID.sub(model, str(fields.get("message") or "The request was refused."))
    message = _INTERNAL_NAMES.sub("", message)
    param = fields.get("param")
    param = param if isinstance(param, str) else None
    if fields.get("code") in REFUSALS:
        return Conflict(
            f"The model `{model}` cannot be served as the installation is now: {message}. "
            "Train it again, or ask the installation's administrator.",
            "model",
            str(fields["code"]),
        )
    if status in (400, 422):
        kind = ContextLengthExceeded if param in TOO_LONG_PARAMS else InvalidRequest
        return kind(message, texts if param in {"input_tokens", "input_text"} else param)
    if status == 404:
        return NotFound(
            f"The model `{model}` does not exist or you do not have access to it.",
            "model",
            "model_not_found",
        )
    if status == 429:
        return RateLimited("The inference service is busy; try again shortly.")
    return away()


async def _whole(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = json.loads(await response.aread())
    except httpx.TransportError as error:
        raise away() from error
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
