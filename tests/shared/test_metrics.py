"""Metrics of a service without HTTP of its own, over real HTTP."""

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge
from pydantic import ValidationError

from shared.metrics import serve_metrics
from shared.settings import MetricsSettings


@pytest.fixture
def url():
    registry = CollectorRegistry()
    Gauge("tailor_example", "An example.", registry=registry).set(3)
    server = serve_metrics(registry, MetricsSettings(metrics_port=0, metrics_secret="right"))
    assert server
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


def test_whoever_has_the_secret_reads_them(url):
    answer = httpx.get(url, headers={"Authorization": "Bearer right"}, trust_env=False)
    assert answer.status_code == 200
    assert "tailor_example 3.0" in answer.text


@pytest.mark.parametrize("sent", ["", "right", "Bearer wrong"])
def test_nobody_else_does(url, sent):
    answer = httpx.get(url, headers={"Authorization": sent}, trust_env=False)
    assert answer.status_code == 401
    assert "tailor_example" not in answer.text


def test_without_a_port_nothing_is_served():
    assert serve_metrics(CollectorRegistry(), MetricsSettings()) is None


@pytest.mark.parametrize("secret", [None, ""])
def test_a_port_without_a_secret_is_refused(secret):
    with pytest.raises(ValidationError, match="TAILOR_METRICS_SECRET"):
        MetricsSettings(metrics_port=9100, metrics_secret=secret)
