"""What one completion cost: counted while it runs, written down once, however it ends."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from services.api.metrics import Metrics
from shared.errors import TailorError
from shared.telemetry import log_event

log = logging.getLogger(__name__)
Json = Mapping[str, Any]
Outcome = Literal["ok", "refused", "broken", "abandoned"]


class Meter:
    """The tokens and the outcome of one completion."""

    def __init__(
        self, metrics: Metrics, tenant_id: str, model: str, *, is_adapter: bool, n: int = 1
    ) -> None:
        self.outcome: Outcome = "abandoned"
        """The caller left, unless something else is set before the end."""
        self._metrics = metrics
        self._ids = {"tenant_id": tenant_id, "model": model}
        self._kind = "adapter" if is_adapter else "base"
        self._n = n
        """Answers to each prompt."""
        self._totals: Json = {}
        self._by_prompt: dict[int, int] = {}
        self._by_choice: dict[int, int] = {}
        self._began = time.perf_counter()
        self._first_token: float | None = None

    def count(self, found: Json) -> None:
        """Take over the usage of an answer, or of one piece of a stream.

        A piece with choices has the running totals of those alone (and of their prompt); the
        whole request's come in an answer and in a stream's last piece, which has no choices.
        """
        if self._first_token is None:
            self._first_token = time.perf_counter() - self._began
        usage = found.get("usage") or {}
        choices = found.get("choices") or []
        if not choices:
            self._totals = usage
        for choice in choices:
            index = int(choice.get("index") or 0)
            _raise(self._by_prompt, index // self._n, usage.get("prompt_tokens"))
            _raise(self._by_choice, index, usage.get("completion_tokens"))

    def count_whole(self, usage: Json | None) -> None:
        """Take over the totals of a complete answer."""
        self.count({"usage": usage})

    def total_tokens(self) -> int:
        """Return how many tokens were read and written so far."""
        return sum(self._tokens().values())

    def _tokens(self) -> dict[str, int]:
        running = {"prompt": self._by_prompt, "completion": self._by_choice}
        return {
            direction: max(sum(seen.values()), int(self._totals.get(f"{direction}_tokens") or 0))
            for direction, seen in running.items()
        }

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
        counted = self._tokens()
        for direction, tokens in counted.items():
            self._metrics.tokens.labels(self._kind, direction).inc(tokens)
        data = {
            **self._ids,
            "outcome": self.outcome,
            "prompt_tokens": counted["prompt"],
            "completion_tokens": counted["completion"],
            "seconds": round(time.perf_counter() - self._began, 4),
            "first_token_seconds": self._first_token and round(self._first_token, 4),
        }
        log.info("completion", extra=log_event("completion", **data))


def _raise(totals: dict[int, int], index: int, tokens: Any) -> None:
    totals[index] = max(totals.get(index, 0), int(tokens or 0))
