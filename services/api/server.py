"""The HTTP server: uvicorn with httptools, which has no limits of its own, and the limits here.

Without them one header of 96 MB holds the process for 15 s (it is copied at every read), and
silent connections stay open until the process has no more files to open.
"""

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from services.api.settings import ApiSettings
from shared.errors import (
    HeadersTooLarge,
    InvalidRequest,
    RequestTimeout,
    TailorError,
    UpstreamUnavailable,
    payload,
)

MAX_HEAD_BYTES = 64 * 2**10
"""Of request line and headers together; also of what frames a chunked body without being body."""
LINGER_SECONDS = 2.0
"""How long what still comes is thrown away after a refusal: closing a socket with unread data
resets it, and the client would lose the answer."""


@dataclass(frozen=True)
class Limits:
    """What one process grants its connections."""

    connections: int
    head_seconds: float
    """From the first moment of a connection, or the first byte of a later request, to the end of
    the headers. Between requests the keep-alive time counts."""


def server_config(app: ASGIApp, settings: ApiSettings, **changes: Any) -> uvicorn.Config:
    """Return how the API is served."""
    limits = Limits(settings.max_connections, settings.receive_seconds)
    return uvicorn.Config(
        app,
        http=_protocol(limits),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        # Longer than clients keep an idle connection, so that none is closed under a request.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
        **changes,
    )


def listening(settings: ApiSettings) -> list[socket.socket] | None:
    """Return open sockets of the public and the admin port; None for one port, opened by uvicorn.

    One server listens on both, so that limits on connections and the end of the process are one.
    """
    if settings.admin_port is None:
        return None
    places = (settings.api_host, settings.api_port), (settings.admin_host, settings.admin_port)
    return [
        socket.create_server(place, family=socket.AF_INET6 if ":" in place[0] else socket.AF_INET)
        for place in places
    ]


def _protocol(limits: Limits) -> type["LimitedHttp"]:
    # uvicorn builds a protocol for each connection and hands it nothing of ours.
    return type("LimitedHttp", (LimitedHttp,), {"limits": limits})


class LimitedHttp(HttpToolsProtocol):
    """One connection, with a limit on its head, on its silence, and on how many there are."""

    limits: ClassVar[Limits]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock; refuse the connection when there are too many."""
        super().connection_made(transport)
        self._overhead = 0  # bytes since the parser last finished a head or found a body
        self._moved = False
        self._refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            self._refuse(UpstreamUnavailable("Too many connections are open; try again shortly."))
            self.transport.close()
        else:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand on no more at a time than the head may still have."""
        while data and self._is_open():
            room = MAX_HEAD_BYTES - self._overhead
            piece, data = data[:room], data[room:]
            self._moved = False
            super().data_received(piece)
            self._overhead = 0 if self._moved else self._overhead + len(piece)
            if self._overhead >= MAX_HEAD_BYTES:
                self._refuse(
                    HeadersTooLarge(f"The headers are longer than {MAX_HEAD_BYTES} bytes.")
                )
        if self._is_idle() and self._head_timer is None and self._is_open():
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        """Stop the clock: the body has one of its own, at the front door."""
        self._moved = True
        self._stop_head_timer()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            # We speak HTTP/1.1 only; the parser reads nothing after an offer to change.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Note that the body moves on."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self._moved = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Close a connection whose request is answered and still not all here."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the shape of all errors."""
        self._refuse(InvalidRequest(msg, code="invalid_http"))

    def _is_open(self) -> bool:
        return not self._refused and not self.transport.is_closing()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.head_seconds, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self._overhead:
            seconds = self.limits.head_seconds
            self._refuse(RequestTimeout(f"The headers did not arrive within {seconds:g} seconds."))
        else:
            self.transport.close()

    def _refuse(self, error: TailorError) -> None:
        """Answer from outside the application, and close soon."""
        if not self._is_idle() or not self._is_open():
            self.transport.close()
            return
        self._refused = True
        body = json.dumps(payload(error)).encode()
        self.transport.write(
            STATUS_LINE[error.status] + b"content-type: application/json\r\n"
            b"connection: close\r\n"
            b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
