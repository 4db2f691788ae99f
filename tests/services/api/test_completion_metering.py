"""What the gateway writes down of each completion, and never its text."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import wait_until
from tests.services.api.conftest import BASE, Api, Exchange, Tenant, Upstream
from tests.services.api.test_completions import (
    ASK,
    chunk,
    model,
    streamed_answer,
    whole_answer,
)

__all__ = ["model"]


class Records(logging.Handler):
    """Keeps what the gateway logs."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.data.append(record.__dict__["data"])


@pytest.fixture
def metered() -> Iterator[list[dict[str, Any]]]:
    """What was metered during a test."""
    logger = logging.getLogger("services.api.completions.metering")
    handler, level = Records(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.data
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("stream", [False, True])
def test_every_completion_is_metered_once_without_its_text(
    tenant: Tenant, model: str, upstream: Upstream, metered: list[dict[str, Any]], stream: bool
) -> None:
    upstream.script = streamed_answer if stream else whole_answer
    body = {"model": model, "messages": ASK, "stream": stream}
    assert tenant.http.post("/v1/chat/completions", json=body).status_code == 200
    wait_until(lambda: metered, "the completion is metered")
    (line,) = metered
    assert (line["outcome"], line["tenant_id"], line["model"]) == ("ok", tenant.id, model)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 3)
    assert "営業時間" not in json.dumps(line, ensure_ascii=False)


def test_a_caller_who_leaves_midway_is_metered_for_what_was_made(
    api: Api, tenant: Tenant, model: str, upstream: Upstream, metered: list[dict[str, Any]]
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.send_event(chunk(exchange, delta={"role": "assistant", "content": "九"}))
        exchange.was_left()

    upstream.script = script
    body = {"model": model, "messages": ASK, "stream": True}
    with (
        api.client(tenant.key) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        next(answer.iter_lines())
    wait_until(lambda: metered, "the completion is metered")
    assert metered[0]["outcome"] == "abandoned"
    assert metered[0]["completion_tokens"] == 3


def test_metrics_count_tokens_by_kind(
    api: Api, tenant: Tenant, model: str, upstream: Upstream
) -> None:
    upstream.script = whole_answer
    before = tokens_by_kind(api)
    tenant.openai.chat.completions.create(model=model, messages=ASK)
    tenant.openai.chat.completions.create(model=BASE, messages=ASK)
    tenant.openai.chat.completions.create(model=BASE, messages=ASK)
    assert tokens_by_kind(api) - before == {
        ("adapter", "prompt"): 7,
        ("adapter", "completion"): 3,
        ("base", "prompt"): 14,
        ("base", "completion"): 6,
    }
    assert model not in api.admin().get("/metrics").text


def tokens_by_kind(api: Api) -> Counter[tuple[str, str]]:
    """Return the tokens metered so far."""
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(api.admin().get("/metrics").text):
        for sample in family.samples:
            if sample.name == "tailor_tokens_total":
                key = (sample.labels["kind"], sample.labels["direction"])
                found[key] = int(sample.value)
    return found
