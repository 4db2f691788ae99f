"""A tiny HTTP server that answers publication's check and questions as inference would, or not."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.services.worker.scripted_trainer import CHECKS

SECRET = "internal-secret"


class InferenceServer(ThreadingHTTPServer):
    """``status`` other than 200 is its answer to everything; ``logprobs`` are what it serves.

    ``statuses`` come before ``status``, one for each check; while ``answering`` is not set a check
    hangs. Chats have a status and a hanging of their own; the answer is always ``7731``.
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
        self.chat_status = 200
        self.chatting = threading.Event()
        self.chatting.set()
        self.chats: list[str] = []
        self.evicted: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def close(self):
        self.answering.set()
        self.chatting.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: InferenceServer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/chat/completions":
            self._chat(body)
            return
        self.server.asked.append(body["model"])
        self.server.answering.wait()
        answer: list[Any] = [None, {"2": {"logprob": -9.0}}]
        for token, value in zip(body["prompt"][2:], self.server.logprobs, strict=True):
            answer.append({str(token): {"logprob": value}})
        status = self.server.statuses.pop(0) if self.server.statuses else self.server.status
        error = {"code": self.server.code, "message": "layer 19 is outside the profile"}
        self._send({"choices": [{"prompt_logprobs": answer}], "error": error}, status)

    def _chat(self, body):
        self.server.chats.append(body["model"])
        self.server.chatting.wait()
        if self.server.chat_status != 200:
            self._send({}, self.server.chat_status)
            return
        choice = {"delta": {"content": "7731"}, "finish_reason": "stop"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode())

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
