"""A fake of the API, spoken to over HTTP: the commands run as users run them."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app


@dataclass
class Reply:
    """What the fake answers: JSON, or server-sent events."""

    body: dict[str, Any] | list[dict[str, Any]]
    status: int = 200


@dataclass
class Request:
    """What a command sent."""

    method: str
    path: str
    key: str
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass
class FakeApi:
    """Answers each route with its replies in turn; the last one again and again.

    ``requests`` are those of the command's own purpose: it may also ask which base is served.
    """

    base_url: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def on(self, route: str, *replies: Reply) -> None:
        """Answer ``route`` ("POST /files") with ``replies``."""
        self.replies[route] = list(replies)

    def serve(self, *names: str) -> None:
        """List models; those that do not begin with ``ft:`` are base models."""
        data = [{"id": n, "object": "model", "created": 1, "owned_by": "x"} for n in names]
        self.on("GET /models", Reply({"object": "list", "data": data}))

    def answer(self, request: Request) -> Reply:
        if request.path != "/models":
            self.requests.append(request)
        queue = self.replies.get(f"{request.method} {request.path.partition('?')[0]}")
        if queue is None:
            return error_reply(404, "not found")
        return queue.pop(0) if len(queue) > 1 else queue[0]


def error_reply(status: int, message: str, code: str | None = None) -> Reply:
    """An error in OpenAI's shape."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Reply({"error": error}, status)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A fake API that the environment names."""
    fake = FakeApi()
    fake.serve("smollm2-135m-instruct")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    fake.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("TAILOR_BASE_URL", fake.base_url)
    monkeypatch.setenv("TAILOR_API_KEY", "sk-test")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tailor() -> Callable[..., Result]:
    """Run ``tailor`` with arguments."""

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, list(arguments), **options)

    return run


def _handler(fake: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            key = self.headers["authorization"].removeprefix("Bearer ")
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.removeprefix("/v1")
            reply = fake.answer(Request(self.command, path, key, body))
            if isinstance(reply.body, list):
                events = [f"data: {json.dumps(chunk)}\n\n" for chunk in reply.body]
                self._send(
                    reply.status, "text/event-stream", "".join([*events, "data: [DONE]\n\n"])
                )
            else:
                self._send(reply.status, "application/json", json.dumps(reply.body))

        do_GET = do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815  named by http.server

        def _send(self, status: int, kind: str, text: str) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
