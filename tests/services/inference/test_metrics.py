"""What the guard tells Prometheus, in prometheus_client's own registry as vLLM shows it."""

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from tests.services.inference.test_guard import BASE, Service, service, until

__all__ = ["service"]
pytestmark = pytest.mark.anyio


def waiting(kind: str, tenant: str = "") -> float | None:
    return REGISTRY.get_sample_value("tailor_inference_waiting", {"class": kind, "tenant": tenant})


def waits(need: str) -> float:
    return REGISTRY.get_sample_value("tailor_inference_wait_seconds_count", {"need": need}) or 0


async def flood(service: Service) -> list[asyncio.Task[Any]]:
    """Let one tenant ask for six adapters: two get a place of the four, four wait."""
    service.engine.release.clear()
    asked = [
        asyncio.create_task(service.ask(service.publish(), tenant="org-flood")) for _ in range(6)
    ]
    await until(lambda: len(service.engine.running) == 2)
    return asked


async def test_requests_that_wait_are_told_by_class_and_never_by_tenant(service: Service) -> None:
    asked = await flood(service)
    assert waiting("busy") == 4
    assert waiting("idle") == waiting("system") == 0
    assert b"org-flood" not in generate_latest(REGISTRY)
    service.engine.release.set()
    await asyncio.gather(*asked)
    assert waiting("busy") == 0


async def test_a_setting_allows_tenants_to_be_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILOR_METRICS_TENANT_NAMES", "true")
    asked = await flood(service)
    assert waiting("busy", "org-flood") == 4
    service.engine.release.set()
    await asyncio.gather(*asked)


async def test_waits_are_told_by_what_was_waited_for(service: Service) -> None:
    before = waits("place"), waits("slot")
    adapter = service.publish()
    await service.ask(BASE)
    service.engine.release.clear()
    first = asyncio.create_task(service.ask(adapter))
    await until(lambda: adapter in service.engine.running)
    second = asyncio.create_task(service.ask(adapter))  # it has its place by now
    service.engine.release.set()
    await asyncio.gather(first, second)
    assert (waits("place"), waits("slot")) == (before[0] + 1, before[1] + 2)


async def test_the_metrics_secret_opens_the_metrics_and_nothing_else(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILOR_METRICS_SECRET", "seen-by-prometheus")
    seen = {"Authorization": "Bearer seen-by-prometheus"}
    assert (await service.client.get("/metrics", headers=seen)).status_code == 200
    assert (await service.ask(BASE, headers=seen)).status_code == 401
    evict = f"/internal/adapters/{service.publish()}"
    assert (await service.client.delete(evict, headers=seen)).status_code == 401
