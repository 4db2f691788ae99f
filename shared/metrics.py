"""Prometheus's text over HTTP, for the services that speak no HTTP otherwise."""

import hmac
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from shared.settings import MetricsSettings

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve_metrics(registry: CollectorRegistry, settings: MetricsSettings) -> WSGIServer | None:
    """Serve ``registry`` to whoever has the secret, in threads; None where no port is set."""
    if settings.metrics_port is None or settings.metrics_secret is None:
        return None
    server = make_server(
        settings.metrics_host,
        settings.metrics_port,
        _guarded(make_wsgi_app(registry), settings.metrics_secret.get_secret_value()),
        server_class=_Server,
        handler_class=_Handler,
    )
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def _guarded(metrics: Wsgi, secret: str) -> Wsgi:
    expected = f"Bearer {secret}".encode()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        sent = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1")
        if not hmac.compare_digest(sent, expected):
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
            return [b"the metrics secret is missing or wrong\n"]
        return metrics(environ, start_response)

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10
    """A caller that sends nothing for so many seconds is left."""

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""
