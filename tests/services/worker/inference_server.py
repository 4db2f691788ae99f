"""A tiny HTTP server that answers the publication check as inference would, or refuses to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.services.worker.scripted_trainer import CHECKS

SECRET = "internal-secret"


class InferenceServer(ThreadingHTTPServer):
    """``status`` other than 200 is its answer to everything; ``logprobs`` are what it serves.

    ``statuses`` come before ``status``, one for each check; while ``answering`` is not set a check
    hangs.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.statuses: list[int] = []
        self.code: str | None = None
        """Of its error, as the guard sends it."""
        self.ready = True
        self.answering = threading.Event()
        self.answering.set()
        self.logprobs = CHECKS[0].adapter_logprobs
        self.asked: list[str] = []
        self.evicted: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def close(self):
        self.answering.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: InferenceServer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body["model"])
        self.server.answering.wait()
        answer: list[Any] = [None, {"2": {"logprob": -9.0}}]
        for token, value in zip(body["prompt"][2:], self.server.logprobs, strict=True):
            answer.append({str(token): {"logprob": value}})
        status = self.server.statuses.pop(0) if self.server.statuses else self.server.status
        error = {"code": self.server.code, "message": "layer 19 is outside the profile"}
        self._send({"choices": [{"prompt_logprobs": answer}], "error": error}, status)

    def do_GET(self):
        self.send_response(200 if self.server.ready else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_DELETE(self):
        if self.server.status == 200:
            self.server.evicted.append(self.path.rsplit("/", 1)[1])
        self._send({}, self.server.status)

    def _send(self, answer, status):
        known = self.headers["Authorization"] == f"Bearer {SECRET}"
        text = json.dumps(answer).encode()
        self.send_response(status if known else 401)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        """Say nothing."""
