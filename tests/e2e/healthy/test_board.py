"""The board and the alerts on the real stack: what a running one tells is what they ask for."""

import re

import httpx
import pytest

from deploy.local.programs import API
from tests.conftest import REPOSITORY
from tests.promql import QUERIES, RULES, firing, samples, selected, selectors

pytestmark = pytest.mark.stack
PROMETHEUS_OWN = {"up"}


@pytest.fixture(scope="module")
def told(stack, inference, sentinels):
    """All samples of all services, after a request to the base model and one to an adapter."""
    asked = {"model": next(iter(sentinels.values())), "prompt": "A", "max_tokens": 1}
    with inference.client() as client:
        client.post("/v1/completions", json=asked).raise_for_status()
    customer = stack.tenant("計器")
    customer.client.completions.create(model="smollm2-135m-instruct", prompt="A", max_tokens=1)
    return samples(*(scrape(url, secret) for url, secret in targets(stack).values()))


def targets(stack) -> dict[str, tuple[str, str]]:
    """Return each service's metrics and the secret that opens them."""
    inside = {
        name: (f"http://127.0.0.1:{port}/metrics", stack.metrics_secret)
        for name, port in stack.wiring.metrics_ports.items()
    }
    return {API: (stack.base_url.removesuffix("/v1") + "/metrics", stack.admin_key)} | inside


def scrape(url: str, secret: str) -> str:
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.get(url, headers=headers, trust_env=False).raise_for_status().text


def test_nobody_reads_the_metrics_without_the_secret(stack) -> None:
    answers = [httpx.get(url, trust_env=False) for url, _ in targets(stack).values()]
    assert [answer.status_code for answer in answers] == [401] * len(answers)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_board_is_answered_by_the_running_stack(query, told) -> None:
    chosen = list(selectors(query))
    assert chosen
    assert [s.prettify() for s in chosen if not selected(s, told)] == []


@pytest.mark.parametrize(
    "query",
    [
        'tailor_adapter_loads_total{outcome="found"}',
        'tailor_inference_wait_seconds_count{need="place"}',
        "tailor_completions_total",
        'tailor_part_up{part="inference"}',
        "tailor_workers",
    ],
)
def test_what_has_happened_is_counted(query, told) -> None:
    (selector,) = selectors(query)
    assert sum(sample.value for sample in selected(selector, told)) >= 1


@pytest.mark.parametrize("alert", RULES)
def test_what_an_alert_looks_at_is_told_by_the_running_stack(alert, told) -> None:
    chosen = [s for s in selectors(RULES[alert]) if s.name not in PROMETHEUS_OWN]
    assert [s.prettify() for s in chosen if not selected(s, told)] == []


def test_the_operators_page_explains_every_metric_and_no_other(told) -> None:
    page = (REPOSITORY / "docs/operations.md").read_text()
    of_histogram, noise = re.compile(r"_(bucket|count|sum)$"), re.compile(r"_created$")
    names = {s.name for s in told if s.name.startswith("tailor_") and not noise.search(s.name)}
    assert set(re.findall(r"`(tailor_\w+)`", page)) == {of_histogram.sub("", n) for n in names}


def test_no_alert_fires_on_the_healthy_stack(told) -> None:
    assert firing(told) - {"DiskLow"} == set()  # the disk is the machine's
