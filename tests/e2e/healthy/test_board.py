"""The board and the alerts on the real stack: what a running one tells is what they ask for."""

import httpx
import pytest

from deploy.local.programs import API
from tests.promql import QUERIES, RULES, firing, samples, selected, selectors

pytestmark = pytest.mark.stack
PROMETHEUS_OWN = {"up"}


@pytest.fixture(scope="module")
def told(stack, sentinels):
    """All samples of all services, after a few requests."""
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


@pytest.mark.parametrize("alert", RULES)
def test_what_an_alert_looks_at_is_told_by_the_running_stack(alert, told) -> None:
    chosen = [s for s in selectors(RULES[alert]) if s.name not in PROMETHEUS_OWN]
    assert [s.prettify() for s in chosen if not selected(s, told)] == []


def test_no_alert_fires_on_the_healthy_stack(told) -> None:
    assert firing(told) - {"DiskLow"} == set()  # the disk is the machine's
