"""Whose turn it is at the guard: places, shares of the engine, clients that leave."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.services.inference.test_guard import BASE, Service, service, until

pytestmark = pytest.mark.anyio
__all__ = ["service"]


async def test_no_more_adapters_than_places_run_at_once(service: Service) -> None:
    service.engine.release.clear()
    adapters = [service.publish() for _ in range(6)]
    asked = [asyncio.create_task(service.ask(adapter)) for adapter in adapters for _ in range(2)]
    await until(lambda: len(service.engine.running) == 8)
    assert set(service.engine.running) == set(adapters[:4])
    # The one that is next has been loaded meanwhile, the one after it has not.
    loaded = service.engine.openai_serving_models.lora_requests
    assert set(loaded) == set(adapters[:5])
    service.engine.release.set()
    answers = await asyncio.gather(*asked)
    assert [a.json()["model"] for a in answers] == [a for a in adapters for _ in range(2)]


async def test_the_base_model_needs_no_place(service: Service) -> None:
    service.engine.release.clear()
    adapters = [service.publish() for _ in range(5)]
    asked = [asyncio.create_task(service.ask(model)) for model in (*adapters, BASE)]
    await until(lambda: BASE in service.engine.running)
    service.engine.release.set()
    await asyncio.gather(*asked)


async def test_a_client_that_leaves_while_waiting_gives_up_its_turn(service: Service) -> None:
    service.engine.release.clear()
    adapters, left = [service.publish() for _ in range(6)], asyncio.Event()
    running = [asyncio.create_task(service.ask(adapter)) for adapter in adapters[:4]]
    await until(lambda: len(service.engine.running) == 4)
    impatient = asyncio.create_task(service.ask_and_leave(adapters[4], left))
    waiting = asyncio.create_task(service.ask(adapters[5]))
    await until(lambda: adapters[4] in service.engine.openai_serving_models.lora_requests)
    left.set()
    assert await asyncio.wait_for(impatient, 5) == []
    service.engine.release.set()
    await asyncio.gather(*running, waiting)
    assert adapters[4] not in {model for model, _ in service.engine.served}


async def test_a_client_that_leaves_ends_its_running_request(service: Service) -> None:
    service.engine.release.clear()
    adapter, left = service.publish(), asyncio.Event()
    asked = asyncio.create_task(service.ask_and_leave(adapter, left))
    await until(lambda: service.engine.running == [adapter])
    left.set()
    await asyncio.wait_for(asked, 5)
    assert service.engine.running == []
    assert service.engine.served == []


def flood(service: Service, count: int, **body: Any) -> list[asyncio.Task[httpx.Response]]:
    return [
        asyncio.create_task(service.ask(BASE, tenant="flooding", body=body)) for _ in range(count)
    ]


async def test_a_tenant_holds_its_share_of_the_engine_and_another_is_let_in_at_once(
    service: Service,
) -> None:
    service.engine.release.clear()
    asked = flood(service, 50)
    await until(lambda: len(service.engine.running) == 32)
    asked.append(asyncio.create_task(service.ask(BASE, tenant="other")))
    await until(lambda: len(service.engine.running) == 33)
    # vLLM takes what has not begun in this order; see newcomers.py for the first.
    assert service.engine.priorities[-1] == 0
    assert max(service.engine.priorities) == 31
    service.engine.release.set()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


@pytest.mark.parametrize(
    ("body", "running"),
    [
        ({"n": 8}, 4),
        ({"prompt": ["a", "b", "c", "d"]}, 8),
        ({"prompt": ["a", "b", "c", "d"], "n": 4}, 2),
        ({"prompt": "x" * 2048}, 10),
        ({"prompt": [1, 2, 3]}, 32),
    ],
)
async def test_a_request_weighs_its_answers_and_its_prompt(
    service: Service, body: dict[str, Any], running: int
) -> None:
    service.engine.release.clear()
    asked = flood(service, 40, **body)
    await until(lambda: len(service.engine.running) >= running)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(service.engine.running) == running
    service.engine.release.set()
    await asyncio.gather(*asked)


async def test_requests_without_a_tenant_do_not_wait_behind_any(service: Service) -> None:
    service.engine.release.clear()
    asked = flood(service, 50)
    await until(lambda: len(service.engine.running) == 32)
    body = {"model": BASE, "prompt": [0]}
    asked.append(asyncio.create_task(service.client.post("/v1/chat/completions", json=body)))
    await until(lambda: len(service.engine.running) == 33)
    service.engine.release.set()
    await asyncio.gather(*asked)
    assert all("x-tailor-tenant" not in headers for _, headers in service.engine.served)


async def test_a_full_queue_is_its_tenants_own(service: Service) -> None:
    service.engine.release.clear()
    asked = flood(service, 60)
    await until(lambda: len(service.engine.running) == 32)
    refused = await service.ask(BASE, tenant="flooding")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    asked.append(asyncio.create_task(service.ask(BASE, tenant="other")))
    await until(lambda: len(service.engine.running) == 33)
    service.engine.release.set()
    await asyncio.gather(*asked)


async def test_one_tenants_adapters_leave_places_for_others(service: Service) -> None:
    service.engine.release.clear()
    own, other = [service.publish() for _ in range(4)], service.publish()
    asked = [asyncio.create_task(service.ask(model, tenant="four")) for model in own]
    await until(lambda: len(service.engine.running) == 2)
    asked.append(asyncio.create_task(service.ask(other)))
    await until(lambda: other in service.engine.running)
    service.engine.release.set()
    await asyncio.gather(*asked)


async def test_an_answer_that_nobody_reads_holds_no_place(service: Service) -> None:
    adapters, left = [service.publish() for _ in range(5)], asyncio.Event()
    unread = asyncio.create_task(service.ask_and_leave(adapters[0], left, reads=False))
    await until(lambda: len(service.engine.served) == 1)
    service.engine.release.clear()
    asked = [asyncio.create_task(service.ask(adapter)) for adapter in adapters[1:]]
    await until(lambda: len(service.engine.running) == 4)
    assert not unread.done()
    left.set()
    service.engine.release.set()
    await asyncio.gather(*asked, unread)
