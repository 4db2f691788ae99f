"""An HTTP server that answers chats as the inference service does, by a test's script."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "internal-secret"


@dataclass(frozen=True)
class Reply:
    """What one request gets: an answer, an error of its own, or half an answer."""

    text: str = ""
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"
    broken: bool = False


class ModelServer(ThreadingHTTPServer):
    """``script`` answers each body; ``asked`` and ``sent`` (headers) remember all."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.script: Callable[[dict[str, Any]], Reply] = lambda body: Reply(question_in(body))
        self.asked: list[dict[str, Any]] = []
        self.sent: list[dict[str, str]] = []
        self.left = threading.Event()
        """Somebody left before the answer."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def close(self):
        self.shutdown()
        self.server_close()


def question_in(body):
    """The last message's text."""
    return body["messages"][-1]["content"]


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.sent.append({name.lower(): text for name, text in self.headers.items()})
        reply = self.server.script(body)
        known = self.headers["Authorization"] == f"Bearer {SECRET}"
        try:
            self._send(reply, body, reply.status if known else 401)
        except OSError:
            self.server.left.set()

    def _send(self, reply, body, status):
        self.send_response(status)
        self.end_headers()
        if status != 200:
            self.wfile.write(json.dumps({"error": reply.error}).encode())
            return
        self._event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        self._event({"choices": [{"delta": {"content": reply.text}}]})
        if reply.broken:
            return
        self._event({"choices": [{"delta": {}, "finish_reason": reply.finish}]})
        words = sum(len(message["content"].split()) for message in body["messages"])
        usage = {"prompt_tokens": words, "completion_tokens": len(reply.text.split())}
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event):
        self.wfile.write(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, *args):
        """Say nothing."""
