"""Served equals trained: inference's answers through the new adapter, against the trainer's.

Trainer and vLLM compute in bf16 in different orders, so they never agree exactly; and the less
likely a token is, the further apart its two log-probabilities are, though both say "almost never".
So each token counts by its probability: a disagreement is believed where the models are sure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from services.worker.spec import ServedCheck

ANSWER_SECONDS = 60.0
READINESS_SECONDS = 5.0
RETRY_STATUSES = {401, 403, 404, 408, 409, 425, 429}
"""They say nothing about the adapter: a service gives them while it is starting, or has not seen
the new folder yet."""
REASONED = {"adapter_refused", "base_not_served"}
"""Codes of our own guard, which has looked at the adapter."""
SURE_SHARE = 3
"""Where training changed little, served may differ from trained by at most this part of it."""


class InferenceAway(Exception):
    """The inference service does not answer, or not yet."""


class Refused(InferenceAway):
    """It calls itself ready and finds fault with the request; a dying vLLM may still say so.

    vLLM answers 400 for whatever goes wrong while it loads an adapter, its own end included. Where
    our guard knows why, ``code`` says so: ``adapter_refused`` or ``base_not_served``.
    """

    def __init__(self, reason: str = "", code: str | None = None) -> None:
        super().__init__(reason)
        self.code = code


class ServedDiffers(Exception):
    """Inference answers, but not as the trained adapter."""


@dataclass(frozen=True)
class Inference:
    """Where the inference service is, and the secret that opens it."""

    url: str
    secret: str

    def prompt_logprobs(self, model: str, token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability of each token but the first.

        Raises InferenceAway (Refused among it), and ServedDiffers for an answer without them.
        """
        body = {
            "model": model,
            "prompt": list(token_ids),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        try:
            response = httpx.post(
                f"{self.url.rstrip('/')}/v1/completions",
                json=body,
                headers={"Authorization": f"Bearer {self.secret}"},
                timeout=ANSWER_SECONDS,
                # A proxy of the environment would be sent the secret, and may not know the way.
                trust_env=False,
            )
        except httpx.TransportError as error:
            raise InferenceAway(type(error).__name__) from error
        if response.status_code == httpx.codes.OK:
            return _chosen(response, token_ids)
        reason = f"inference refused the check with status {response.status_code}"
        if response.status_code in RETRY_STATUSES or not response.is_client_error:
            raise InferenceAway(reason)
        finding = _error_of(response)
        if finding.get("code") in REASONED:
            raise Refused(str(finding.get("message")), str(finding["code"]))
        raise Refused(reason) if self.ready() else InferenceAway(reason)

    def ready(self) -> bool:
        """Say whether the inference service calls itself ready."""
        try:
            url = f"{self.url.rstrip('/')}/readyz"
            return httpx.get(url, timeout=READINESS_SECONDS, trust_env=False).is_success
        except httpx.TransportError:
            return False


def check_served(
    inference: Inference, adapter_id: str, checks: Sequence[ServedCheck], tolerance: float
) -> dict[str, float]:
    """Raise ServedDiffers unless the served adapter is the trained one; return the distances.

    Distances are mean absolute differences of answer-token log-probabilities over all checks, each
    token weighted by its probability. Served against trained must be within ``tolerance``, and
    within a third of what training changed where that is less (but a third of the tolerance is
    always granted), so that an adapter without a part of its weights is found also where training
    changed little; served against base must show at least half of what training changed, so that a
    base model that answers in the adapter's place is found.
    """
    served: list[float] = []
    for check in checks:
        answer = inference.prompt_logprobs(adapter_id, check.token_ids)
        served += answer[check.answer_start - 1 :]
    trained = [value for check in checks for value in check.adapter_logprobs]
    base = [value for check in checks for value in check.base_logprobs]
    distances = {
        "served_to_trained": distance(served, trained),
        "served_to_base": distance(served, base),
        "trained_to_base": distance(trained, base),
    }
    changed = distances["trained_to_base"]
    limit = min(tolerance, max(tolerance, changed) / SURE_SHARE)
    if not distances["served_to_trained"] <= limit:
        raise ServedDiffers(
            f"served and trained differ by {distances['served_to_trained']:.3f}, "
            f"more than {limit:.3f}"
        )
    if not distances["served_to_base"] >= changed / 2:
        raise ServedDiffers("the base model answers in the adapter's place")
    return distances


def distance(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the mean absolute difference of two models' log-probabilities of the same tokens.

    Each token weighs as much as the two models on average think it likely. NaN where there is
    nothing to compare, or a number is none.
    """
    if len(left) != len(right) or not left:
        return math.nan
    pairs = list(zip(left, right, strict=True))
    weights = [(math.exp(min(a, 0)) + math.exp(min(b, 0))) / 2 for a, b in pairs]
    total = sum(weights)
    if not total > 0:
        return math.nan
    return sum(w * abs(a - b) for w, (a, b) in zip(weights, pairs, strict=True)) / total


def _error_of(response: httpx.Response) -> dict[str, Any]:
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _chosen(answer: httpx.Response, token_ids: Sequence[int]) -> list[float]:
    """Pick the prompt tokens' own log-probabilities out of vLLM's answer."""
    try:
        by_position = answer.json()["choices"][0]["prompt_logprobs"]
        return [
            float(candidates[str(token)]["logprob"])
            for token, candidates in zip(token_ids[1:], by_position[1:], strict=True)
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServedDiffers("inference gave no log-probabilities") from error
