"""What one completion cost: counted while it runs, written down once, however it ends."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from services.api.metrics import Metrics
from shared.errors import TailorError

log = logging.getLogger(__name__)
Outcome = Literal["ok", "refused", "broken", "abandoned"]


class Meter:
    """The tokens and the outcome of one completion."""

    def __init__(self, metrics: Metrics, tenant_id: str, model: str, *, is_adapter: bool) -> None:
        self.outcome: Outcome = "abandoned"
        """The caller left, unless something else is set before the end."""
        self._metrics = metrics
        self._ids = {"tenant_id": tenant_id, "model": model}
        self._kind = "adapter" if is_adapter else "base"
        self._tokens = {"prompt": 0, "completion": 0}
        self._began = time.perf_counter()
        self._first_token: float | None = None

    def count(self, usage: Mapping[str, Any] | None) -> None:
        """Take over the running totals of a chunk or an answer."""
        if self._first_token is None:
            self._first_token = time.perf_counter() - self._began
        for direction, tokens in self._tokens.items():
            seen = (usage or {}).get(f"{direction}_tokens") or 0
            self._tokens[direction] = max(tokens, int(seen))

    @contextmanager
    def noting_refusal(self) -> Iterator[None]:
        """Note an error that reaches the caller instead of an answer."""
        try:
            yield
        except TailorError:
            self.outcome = "refused"
            raise

    def record(self) -> None:
        """Write the log line and the counters."""
        self._metrics.completions.labels(self._kind, self.outcome).inc()
        for direction, tokens in self._tokens.items():
            self._metrics.tokens.labels(self._kind, direction).inc(tokens)
        data = {
            **self._ids,
            "outcome": self.outcome,
            "prompt_tokens": self._tokens["prompt"],
            "completion_tokens": self._tokens["completion"],
            "seconds": round(time.perf_counter() - self._began, 4),
            "first_token_seconds": self._first_token and round(self._first_token, 4),
        }
        log.info("completion", extra={"data": data})
