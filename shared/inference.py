"""What gateway and comparer both know of the inference service: its streams, refusals and salt."""

import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx

DONE = "[DONE]"
MAX_EVENT_BYTES = 2**20
TOO_LONG_PARAMS = {"input_tokens", "input_text", "max_tokens", "max_completion_tokens"}
"""The parameter that vLLM names when prompt and answer do not fit the context."""


class BrokenStream(Exception):
    """The inference service stopped in the middle of an answer."""


def cache_salt(key: str, tenant_id: str) -> str:
    """Return what keeps one tenant's prefix cache from being seen by another."""
    return hmac.new(key.encode(), tenant_id.encode(), hashlib.sha256).hexdigest()


async def events(response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events of a stream until its ``[DONE]``; raise BrokenStream when that is missing.

    Lines end at a line feed only: httpx's own splitting also cuts at U+2028 inside the JSON.
    """
    try:
        async for line in _lines(response):
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip().decode(errors="replace")
            if data == DONE:
                return
            event = json.loads(data)
            if not isinstance(event, dict):
                break
            yield event
    except (httpx.TransportError, httpx.StreamError, ValueError) as error:
        raise BrokenStream from error
    raise BrokenStream


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise BrokenStream
        for line in lines:
            yield line
