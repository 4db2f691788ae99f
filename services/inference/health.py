"""Is the engine alive? Token counters that advance, or a one-token answer, are the proof.

vLLM's own ``/health`` says 200 while its engine hangs.
"""

import re
from dataclasses import dataclass

import httpx

_TOKENS = re.compile(r"^vllm:(?:prompt|generation)_tokens_total\{.*\} (\S+)$", re.MULTILINE)
_PROBE_TIMEOUT_SECONDS = 10


@dataclass
class Watch:
    """When the engine last gave proof of life, and how long its silence may last."""

    hang_seconds: float
    alive_at: float
    tokens: float | None = None

    def progressed(self, tokens: float, now: float) -> bool:
        """Note the token counters; say whether they moved since the last look."""
        moved = self.tokens is not None and tokens != self.tokens
        self.tokens = tokens
        if moved:
            self.alive_at = now
        return moved

    def answered(self, now: float) -> None:
        """Note an answered canary."""
        self.alive_at = now

    def hung(self, now: float) -> bool:
        """Say whether the silence has lasted too long."""
        return now - self.alive_at > self.hang_seconds


class Probe:
    """Asks the running server, through the guard, like any other client."""

    def __init__(self, url: str, secret: str, base_model: str) -> None:
        self._base_model = base_model
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=_PROBE_TIMEOUT_SECONDS,
            trust_env=False,
        )

    def tokens(self) -> float | None:
        """Return how many tokens the engine has read and written, None when nobody answers."""
        try:
            response = self._client.get("/metrics")
        except httpx.HTTPError:
            return None
        return sum(float(count) for count in _TOKENS.findall(response.text))

    def canary(self) -> bool:
        """Say whether the base model answers one token."""
        body = {"model": self._base_model, "prompt": [0], "max_tokens": 1, "temperature": 0}
        try:
            return self._client.post("/v1/completions", json=body).is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
