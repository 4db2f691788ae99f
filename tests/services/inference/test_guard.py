"""The guard before a stand-in for vLLM: who gets in, what is refused, how an adapter leaves."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message

from services.inference.guard import Guard
from services.inference.plain_text import TextsAsTrained
from services.inference.reports import Part, Reports
from shared.ids import new_id

BASE = "smollm2-135m-instruct"
SECRET = {"Authorization": "Bearer internal"}


class Engine:
    """What the guard reaches of vLLM: its engine client, its table of adapters, one slow route."""

    def __init__(self) -> None:
        self.errored = False
        self.removed: list[int] = []
        self.served: list[tuple[str, dict[str, str]]] = []
        self.running: list[str] = []
        self.priorities: list[int] = []
        self.release = asyncio.Event()
        self.release.set()
        self.openai_serving_models = SimpleNamespace(
            lora_requests={}, lora_resolver_lock=LocksByName(), resolve_lora=self.resolve
        )

    async def resolve(self, name: str) -> None:
        table = self.openai_serving_models.lora_requests
        table.setdefault(name, SimpleNamespace(lora_int_id=len(table) + 1))

    async def remove_lora(self, number: int) -> None:
        self.removed.append(number)

    async def complete(self, request: Request) -> JSONResponse:
        body = await request.json()
        model = body["model"]
        self.priorities.append(body["priority"])
        if model != BASE:
            await self.resolve(model)
        self.running.append(model)
        gone = asyncio.ensure_future(self.disconnect(request))
        done, _ = await asyncio.wait(
            {gone, asyncio.ensure_future(self.release.wait())}, return_when="FIRST_COMPLETED"
        )
        self.running.remove(model)
        if gone in done:
            return JSONResponse(None)
        gone.cancel()
        self.served.append((model, dict(request.headers)))
        return JSONResponse({"model": model})

    @staticmethod
    async def disconnect(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass


class LocksByName(dict[str, asyncio.Lock]):
    def __missing__(self, name: str) -> asyncio.Lock:
        return self.setdefault(name, asyncio.Lock())


class Service:
    """The guarded application, and a client without and with the secret."""

    def __init__(self, engine: Engine, store: Path, state: Path) -> None:
        self.engine, self.store = engine, store
        self.reports = Reports(state)
        self.reports.clear()
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", engine.complete, methods=["POST"]),
                Route("/v1/load_lora_adapter", engine.complete, methods=["POST"]),
                Route("/health", lambda _: JSONResponse({})),
                Route("/metrics", lambda _: JSONResponse({})),
            ]
        )
        app.state.engine_client = engine
        app.state.openai_serving_models = engine.openai_serving_models
        app.add_middleware(Guard)
        self.app = app
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://guard", headers=SECRET
        )

    def publish(self) -> str:
        adapter = new_id("ad_")
        (self.store / "adapters" / adapter).mkdir(parents=True)
        return adapter

    async def ask(
        self, model: Any, tenant: str = "", body: dict[str, Any] | None = None, **options: Any
    ) -> httpx.Response:
        """Ask as the gateway does; a model belongs to a tenant of its own unless one is named."""
        options["headers"] = {"x-tailor-tenant": tenant or str(model)} | options.get("headers", {})
        asked = {"model": model} | (body or {})
        return await self.client.post("/v1/chat/completions", json=asked, **options)

    async def ask_and_leave(
        self, model: str, left: asyncio.Event, reads: bool = True
    ) -> list[Message]:
        """Ask as a server passes on a client that leaves at ``left``; return what it was sent."""
        body = [{"type": "http.request", "body": json.dumps({"model": model}).encode()}]
        sent: list[Message] = []

        async def receive() -> Message:
            if body:
                return body.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if not reads:
                await left.wait()
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "query_string": b"",
            "headers": [
                (b"authorization", b"Bearer internal"),
                (b"x-tailor-tenant", model.encode()),
            ],
        }
        await self.app(scope, receive, send)
        return sent


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    settings = {
        "STORE_DIR": tmp_path,
        "MODELS_DIR": tmp_path,
        "INFERENCE_SECRET": "internal",
        "INFERENCE_STATE_DIR": tmp_path / "state",
        "INFERENCE_DRAIN_SECONDS": 0.05,
        "INFERENCE_MAX_BODY_BYTES": 3000,
        "INFERENCE_MAX_WAITING": 60,
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"TAILOR_{name}", str(value))
    # What the stand-in has no tokenizer for; see test_plain_text.py.
    monkeypatch.setattr(TextsAsTrained, "are_read_by", unread)
    running = Service(Engine(), tmp_path, tmp_path / "state")
    for part in ("resolver", "cpu_lora", "plain_text", "canary"):
        running.reports.write(part)
    async with running.client:
        yield running


pytestmark = pytest.mark.anyio


async def unread(*_: object) -> bool:
    return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  the conditions are plain lists
            await asyncio.sleep(0)


async def test_the_base_model_and_published_adapters_are_served(service: Service) -> None:
    adapter = service.publish()
    assert (await service.ask(BASE)).json() == {"model": BASE}
    assert (await service.ask(adapter)).json() == {"model": adapter}


@pytest.mark.parametrize("header", ["", "Bearer wrong", "internal"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/metrics"),
        ("DELETE", "/internal/adapters/x"),
        ("GET", "/v1/models"),
    ],
)
async def test_without_the_secret_nothing_opens(
    service: Service, method: str, path: str, header: str
) -> None:
    answer = await service.client.request(method, path, headers={"Authorization": header})
    assert answer.status_code == 401
    assert not service.engine.served


@pytest.mark.parametrize("path", ["/health", "/readyz"])
async def test_probes_need_no_secret(service: Service, path: str) -> None:
    assert (await service.client.get(path, headers={"Authorization": ""})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("GET", "/v1/models"),
        ("POST", "/tokenize"),
        ("GET", "/docs"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("DELETE", "/internal/adapters/../../x"),
    ],
)
async def test_what_is_not_listed_does_not_exist(service: Service, method: str, path: str) -> None:
    assert (await service.client.request(method, path)).status_code == 404
    assert not service.engine.served


@pytest.mark.parametrize("model", ["gpt-4o", "../../etc", "ad_1", f"{BASE} ", "ad_" + "0" * 26])
async def test_any_other_model_name_is_refused_before_vllm_hears_it(
    service: Service, model: str
) -> None:
    answer = await service.ask(model)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert not service.engine.openai_serving_models.lora_resolver_lock


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"model": 3}', 400),
        ("{'モデル'}".encode(), 400),
        (b"[" * 900, 400),
        (b" " * 3001, 413),
    ],
)
async def test_a_bad_body_is_refused(service: Service, body: bytes, status: int) -> None:
    answer = await service.client.post("/v1/chat/completions", content=body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_headers_that_steer_vllm_are_dropped(service: Service) -> None:
    await service.ask(BASE, headers={"X-Request-Id": "mine", "X-data-parallel-rank": "1"})
    (_, headers) = service.engine.served[0]
    assert {"x-request-id", "x-data-parallel-rank", "authorization"}.isdisjoint(headers)
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("part", ["resolver", "cpu_lora", "plain_text"])
async def test_nothing_is_served_until_resolver_and_operation_have_reported(
    service: Service, part: Part
) -> None:
    service.reports.clear()
    service.reports.write("canary")
    others: set[Part] = {"resolver", "cpu_lora", "plain_text"}
    for other in others - {part}:
        service.reports.write(other)
    readiness = await service.client.get("/readyz")
    assert readiness.status_code == 503
    assert [p for p, reported in readiness.json()["parts"].items() if not reported] == [part]
    assert (await service.ask(BASE)).status_code == 503
    assert not service.engine.served


async def test_a_dead_engine_is_not_ready_and_blames_no_request(service: Service) -> None:
    service.engine.errored = True
    assert (await service.client.get("/readyz")).json()["parts"]["engine"] is False
    assert (await service.ask(service.publish())).status_code == 503
    assert not service.engine.served


async def test_another_process_reporting_the_resolver_is_not_enough(service: Service) -> None:
    report = next((service.store / "state" / "reports").glob("resolver-*"))
    report.rename(report.with_name(f"resolver-{os.getpid() + 1}.json"))
    assert (await service.client.get("/readyz")).status_code == 503


async def test_an_evicted_adapter_is_forgotten_by_vllm_and_refused(service: Service) -> None:
    adapter, other = service.publish(), service.publish()
    for model in (adapter, other):
        await service.ask(model)
    answer = await service.client.delete(f"/internal/adapters/{adapter}")
    assert answer.json() == {"evicted": adapter}
    assert set(service.engine.openai_serving_models.lora_requests) == {other}
    assert service.engine.removed == [1]
    assert (await service.ask(adapter)).status_code == 404
    assert (await service.ask(other)).status_code == 200


async def test_eviction_ends_the_requests_that_run_and_those_that_wait(service: Service) -> None:
    service.engine.release.clear()
    adapters = [service.publish() for _ in range(5)]
    running, *_, waiting = [asyncio.create_task(service.ask(adapter)) for adapter in adapters]
    await until(lambda: len(service.engine.running) == 4)
    for adapter, request in ((adapters[-1], waiting), (adapters[0], running)):
        assert (await service.client.delete(f"/internal/adapters/{adapter}")).status_code == 200
        assert (await request).status_code == 404
    assert adapters[0] not in service.engine.running
    service.engine.release.set()


async def test_eviction_can_be_repeated(service: Service) -> None:
    adapter = new_id("ad_")
    for _ in range(2):
        assert (await service.client.delete(f"/internal/adapters/{adapter}")).status_code == 200
