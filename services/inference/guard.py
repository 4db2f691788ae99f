"""ASGI middleware before vLLM: a secret, a short list of paths, known models, fair admission.

vLLM's own surface is wide (runtime loading, docs, load reports, a lock for ever per unknown model
name); what is not listed here does not exist.
"""

import asyncio
import hmac
import json
import os
import time
from typing import Any

from pydantic import SecretStr
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.inference.admission import Admission
from services.inference.door import Door, Guest, OneShot
from services.inference.metrics import SYSTEM, WAITING, WAITS
from services.inference.outbox import Outbox
from services.inference.plain_text import TextsAsTrained
from services.inference.refusals import REFUSALS
from services.inference.reports import Reports
from services.inference.settings import InferenceSettings
from shared.catalog import load_catalog
from shared.errors import (
    AuthenticationFailed,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    TailorError,
    UpstreamUnavailable,
    payload,
)
from shared.ids import is_adapter_id
from shared.settings import TENANT_HEADER
from shared.storage import LocalStore

_EVICT = "/internal/adapters/"
PROMPT_BYTES_PER_SLOT = 1024
"""Reading so much costs the engine about as much as writing a short answer."""
_KEPT_HEADERS = {b"host", b"content-type", b"accept"}
"""Others can steer vLLM: X-Request-Id names requests, X-data-parallel-rank chooses an engine."""


class Guard:
    """Everything that reaches this vLLM comes through here."""

    def __init__(self, app: ASGIApp) -> None:
        settings = InferenceSettings()
        entry = load_catalog(settings.models_dir).get(settings.inference_base_model)
        self._app = app
        self._settings = settings
        self._base_model = entry.name
        self._texts = TextsAsTrained(entry.folder(settings.models_dir), entry.context_length)
        self._store = LocalStore(settings.store_dir)
        self._reports = Reports(settings.inference_state_dir)
        self._policy = policy = Admission(
            settings.inference_max_num_seqs,
            entry.serving.max_loras,
            settings.inference_tenant_share,
            settings.inference_slice_seconds,
        )
        WAITING.watch(policy, tenant_names=settings.metrics_tenant_names)
        self._door = Door(policy, time.monotonic, settings.inference_max_waiting, self._prefetch)
        self._loading: dict[str, asyncio.Task[Any]] = {}
        self._state: Any = None
        """vLLM's application state: its engine client and its table of adapters."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse or pass on one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        self._state = scope["app"].state
        answer = _Sending(send)
        try:
            await self._route(scope, receive, answer)
        except TailorError as error:
            if not answer.started:
                await JSONResponse(payload(error), error.status)(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, answer: "_Sending") -> None:
        route = (scope["method"], scope["path"])
        if route == ("GET", "/readyz"):
            await self._compare_texts(scope["app"])
            await self._readiness()(scope, receive, answer.send)
            return
        if route == ("GET", "/health"):
            await self._pass(scope, receive, answer.send)
            return
        if route == ("GET", "/metrics"):
            self._check_secret(scope, self._settings.metrics_secret)
            await self._pass(scope, receive, answer.send)
            return
        self._check_secret(scope)
        match route:
            case ("POST", "/v1/chat/completions" | "/v1/completions"):
                await self._complete(scope, receive, answer)
            case ("DELETE", path) if path.startswith(_EVICT):
                evicted = await self._evict(path.removeprefix(_EVICT))
                await JSONResponse({"evicted": evicted})(scope, receive, answer.send)
            case _:
                raise NotFound("no such route")

    def _check_secret(self, scope: Scope, other: SecretStr | None = None) -> None:
        """Let pass whoever has the internal secret, or the ``other``."""
        sent = dict(scope["headers"]).get(b"authorization", b"")
        secrets = [s.get_secret_value() for s in (self._settings.inference_secret, other) if s]
        # Every one is compared, so that the time tells nothing.
        right = [hmac.compare_digest(sent, f"Bearer {secret}".encode()) for secret in secrets]
        if not any(right):
            raise AuthenticationFailed("the internal secret is missing or wrong")

    async def _compare_texts(self, application: Any) -> None:
        """Until it has once, let this vLLM show that it reads chats as training does."""
        if self._reports.reported("plain_text", os.getpid()):
            return

        async def vllm(scope: Scope, receive: Receive, send: Send) -> None:
            await self._app({**scope, "app": application}, receive, send)

        if await self._texts.are_read_by(vllm, self._base_model):
            self._reports.write("plain_text")

    def _parts(self) -> dict[str, bool]:
        """Which of the parts that make an answer trustworthy have reported themselves."""
        parts = {"guard": True, "resolver": self._reports.reported("resolver", os.getpid())}
        parts["plain_text"] = self._reports.reported("plain_text", os.getpid())
        if self._settings.inference_device == "cpu":
            parts["cpu_lora"] = self._reports.reported("cpu_lora")
        return parts

    def _unreported(self) -> list[str]:
        return [name for name, reported in self._parts().items() if not reported]

    def _readiness(self) -> JSONResponse:
        parts = self._parts()
        parts["engine"] = not self._state.engine_client.errored
        parts["canary"] = self._reports.age("canary") < self._settings.inference_hang_seconds
        ready = all(parts.values())
        return JSONResponse({"ready": ready, "parts": parts}, 200 if ready else 503)

    async def _complete(self, scope: Scope, receive: Receive, answer: "_Sending") -> None:
        await self._compare_texts(scope["app"])
        if missing := self._unreported():
            raise UpstreamUnavailable(f"not serving: {', '.join(missing)} did not report")
        if self._state.engine_client.errored:
            # vLLM would answer 400 where the adapter cannot be loaded any more.
            raise UpstreamUnavailable("the engine has ended")
        body = await _read_body(receive, self._settings.inference_max_body_bytes)
        guest = self._guest(scope, body)
        left = asyncio.ensure_future(_disconnect(receive))
        outbox = Outbox(answer.send)
        need = "place" if self._policy.needs_place(guest.adapter) else "slot"
        arrived = time.monotonic()

        async def work(abort: OneShot, held: int) -> None:
            WAITS.labels(need).observe(time.monotonic() - arrived)
            # Only now: a flood's texts shall not be read ahead of their turn.
            texts = await asyncio.to_thread(self._texts.rewrite, body)
            sender = answer.until(abort, outbox.put)
            if guest.adapter is not None:
                sender = REFUSALS.explaining(guest.adapter, sender)
            await self._pass(scope, _replay(_ranked(texts, held), left, abort), sender)

        try:
            await self._door.run(guest, left, work)
            await outbox.finish()
        finally:
            outbox.close()
            left.cancel()

    def _guest(self, scope: Scope, body: bytes) -> Guest:
        """Return who asks for what; raise NotFound for a model that does not exist."""
        asked = _asked(body)
        model: str = asked["model"]
        tenant = dict(scope["headers"]).get(TENANT_HEADER.encode(), b"").decode("latin-1")
        is_base = model == self._base_model
        # The folder is looked for before vLLM hears the name, which it would never forget.
        if not is_base and not (is_adapter_id(model) and self._store.adapter(model).is_dir()):
            raise NotFound(f"The model `{model}` does not exist.", code="model_not_found")
        return Guest(tenant or SYSTEM, None if is_base else model, _slots(asked, len(body)))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name in _KEPT_HEADERS]
        await self._app({**scope, "headers": headers}, receive, send)

    async def _evict(self, adapter: str) -> str:
        """Make this server forget an adapter, so that its files may be deleted afterwards.

        vLLM keeps name → path after it has dropped the weights, and reads the path again inside the
        engine's step: a missing file there ends the engine for everybody. So the name goes first.
        """
        if not is_adapter_id(adapter):
            raise NotFound("not an adapter id")
        await self._door.shut(adapter, self._settings.inference_drain_seconds)
        models = self._state.openai_serving_models
        async with models.lora_resolver_lock[adapter]:
            request = models.lora_requests.pop(adapter, None)
            if request is not None:
                await self._state.engine_client.remove_lora(request.lora_int_id)
        del models.lora_resolver_lock[adapter]
        return adapter

    def _prefetch(self, adapter: str) -> None:
        """Load the adapter that is admitted next while it still waits."""
        models = self._state.openai_serving_models
        if adapter not in models.lora_requests and adapter not in self._loading:
            task = asyncio.ensure_future(models.resolve_lora(adapter))
            self._loading[adapter] = task
            task.add_done_callback(lambda _: self._loading.pop(adapter))


class _Sending:
    """Remembers whether the status line is out, after which no other answer can be given."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def send(self, message: Message) -> None:
        """Pass a message on to the client."""
        self.started = True
        await self._send(message)

    def until(self, abort: OneShot, put: Send) -> Send:
        """Return a ``put`` that falls silent once ``abort`` has happened."""

        async def send(message: Message) -> None:
            if not abort.done():
                self.started = True
                await put(message)

        return send


async def _read_body(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the client left while sending")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise PayloadTooLarge(f"the body is larger than {limit} bytes")
    return bytes(body)


def _asked(body: bytes) -> dict[str, Any]:
    try:
        asked: Any = json.loads(body)
        model = asked["model"]
    except (ValueError, KeyError, TypeError, RecursionError):
        model = None
    if not isinstance(model, str):
        raise InvalidRequest("the body must be a JSON object with a model", param="model")
    return dict(asked)


def _slots(asked: dict[str, Any], size: int) -> int:
    """Return the weight of a request: its sequences, and what must be read before they begin."""
    prompt, n = asked.get("prompt"), asked.get("n")
    prompts = 1
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        prompts = len(prompt)
    return prompts * (n if isinstance(n, int) and n > 0 else 1) + size // PROMPT_BYTES_PER_SLOT


def _ranked(body: bytes, held: int) -> bytes:
    """Add vLLM's priority: who holds less goes first; 0 has one slot only, see newcomers.py."""
    return json.dumps(json.loads(body) | {"priority": held - 1}).encode()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes, left: OneShot, abort: OneShot) -> Receive:
    """Return a ``receive`` that gives the body, then waits until somebody ends the request."""
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if first:
            return first.pop()
        await asyncio.wait({left, abort}, return_when=asyncio.FIRST_COMPLETED)
        return {"type": "http.disconnect"}

    return receive
