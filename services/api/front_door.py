"""What happens to every request before FastAPI sees it: id, key, size, log line, last error.

It is plain ASGI because FastAPI reads a body before its dependencies run, and neither the key nor
the size may wait for that.
"""

import logging
import re
import time
import traceback
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.areas import is_admin, is_elsewhere
from services.api.auth import Caller, KeyRing
from services.api.errors import response, translated
from services.api.metrics import Metrics
from shared.errors import NotFound, PayloadTooLarge, RequestTimeout, TailorError
from shared.ids import new_id
from shared.telemetry import log_context, log_event

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
PUBLIC_PATHS = {"/healthz", "/readyz", "/openapi.json"}
UPLOAD_PATH = "/v1/files"
MULTIPART_OVERHEAD = 64 * 2**10
LINGER_SECONDS = 5.0

log = logging.getLogger(__name__)


class FrontDoor:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        metrics: Metrics,
        upload_max_bytes: int,
        json_max_bytes: int,
        receive_seconds: float,
        admin_port: int | None,
    ) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._upload_max_bytes = upload_max_bytes
        self._json_max_bytes = json_max_bytes
        self._receive_seconds = receive_seconds
        self._admin_port = admin_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's request (or the application's start and stop)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Clients join a base URL and a path with too many slashes; a redirect would name a host
        # of the caller's choice.
        scope = {**scope, "path": re.sub("/{2,}", "/", scope["path"]).rstrip("/") or "/"}
        body = self._body(scope, receive)
        answer = _Answer(send, body, new_id("req_"))
        began = time.perf_counter()
        with log_context(request_id=answer.request_id, **_client(scope)):
            try:
                await self._handle(scope, body, answer)
            finally:
                self._record(scope, answer.status, time.perf_counter() - began)

    async def _handle(self, scope: Scope, body: "_Body", answer: "_Answer") -> None:
        try:
            if is_elsewhere(scope, self._admin_port):
                # Also before the key: this port tells nobody whether one is the administrator's.
                raise NotFound("There is nothing at this URL.", code="unknown_url")
            if scope["path"] not in PUBLIC_PATHS:
                await self._admit(scope, body)
            await self._app(scope, body.receive, answer.send)
        except ClientDisconnect:
            answer.status = 499
        except Exception as error:  # the outermost loop of a request
            if answer.status:
                raise
            told = _final_error(error)
            scope["state"]["refused"] = told.message if told.status in {401, 403} else told.code
            await response(told)(scope, body.receive, answer.send)

    async def _admit(self, scope: Scope, body: "_Body") -> None:
        """Check key and declared size; no byte of the body has been read."""
        caller = await self._keys.caller(body.headers.get("authorization"))
        _check_area(scope["path"], caller)
        body.check_declared_size()
        scope.setdefault("state", {})["caller"] = caller

    def _body(self, scope: Scope, receive: Receive) -> "_Body":
        if scope["path"] == UPLOAD_PATH:
            return _Body(scope, receive, self._upload_max_bytes + MULTIPART_OVERHEAD, None)
        return _Body(scope, receive, self._json_max_bytes, self._receive_seconds)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, not the path, and no method that a caller makes up: paths carry ids,
        # and either would make endless metrics.
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        route = _pattern(scope)
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        data = {"method": method, "route": route, "status": status, **_who(scope)}
        log.info("request", extra=log_event("request", **data, seconds=round(seconds, 4)))


def _pattern(scope: Scope) -> str:
    """Return the route's pattern, also of a request that was refused before it was routed."""
    if "route" not in scope:
        for route in scope["app"].routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(route.path)
    return getattr(scope.get("route"), "path", "unknown")


def _client(scope: Scope) -> dict[str, str]:
    """Return the address that the request came from, where there is one."""
    address = scope.get("client")
    return {"client": address[0]} if address else {}


def _who(scope: Scope) -> dict[str, Any]:
    """Say who called, and why the front door refused the call if it did."""
    state = scope.get("state", {})
    caller: Caller | None = state.get("caller")
    found = {
        "key_id": caller.key_id if caller else None,
        "tenant_id": caller.tenant_id if caller else None,
        "refused": state.get("refused"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _check_area(path: str, caller: Caller) -> None:
    if is_admin(path):
        caller.require_admin()
    else:
        caller.as_tenant()


def _final_error(error: Exception) -> TailorError:
    known = translated(error)
    if known is not None:
        return known
    # The message may hold rows or parameters: only its type and place are logged.
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error(
        "unexpected error",
        extra=log_event("unexpected_error", kind=type(error).__name__, place=place),
    )
    return TailorError("The server made a mistake; it has been logged.", code="internal_error")


class _Body:
    """The request's body, counted while it streams in."""

    def __init__(self, scope: Scope, receive: Receive, limit: int, seconds: float | None) -> None:
        self.headers = Headers(scope=scope)
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._deadline = anyio.current_time() + seconds if seconds else float("inf")
        self._seen = 0
        declared = self.headers.get("content-length", "0")
        self._declared = int(declared) if declared.isascii() and declared.isdigit() else 0
        self.unread = self._declared > 0 or "transfer-encoding" in self.headers

    def check_declared_size(self) -> None:
        """Raise PayloadTooLarge when the Content-Length alone says so."""
        if self._declared > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """Pass on the next piece; raise PayloadTooLarge as soon as the sum passes the limit.

        Raises RequestTimeout when the whole is not here in time.
        """
        message = await self._next()
        if message["type"] == "http.disconnect":
            self.unread = False
            return message
        self._seen += len(message.get("body", b""))
        self.unread = message.get("more_body", False)
        if self._seen > self._limit:
            raise self._too_large()
        return message

    async def _next(self) -> Message:
        if not self.unread:
            return await self._receive()
        with anyio.CancelScope(deadline=self._deadline):
            return await self._receive()
        self.unread = False  # it has had its time, also for the answer's sake
        raise RequestTimeout(f"The body did not arrive within {self._seconds:g} seconds.")

    async def drain(self) -> None:
        """Read and forget what still comes, for a few seconds.

        Closing a socket with unread data resets it, and the client would lose the answer.
        """
        with anyio.move_on_after(LINGER_SECONDS):
            while self.unread:
                message = await self._receive()
                self.unread = message["type"] == "http.request" and message.get("more_body", False)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The body is larger than the limit of {self._limit} bytes.")


class _Answer:
    """The response on its way out: gets the request id, and its status is remembered."""

    def __init__(self, send: Send, body: _Body, request_id: str) -> None:
        self._send = send
        self._body = body
        self.request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass on one message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        elif self._body.unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._body.drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)
