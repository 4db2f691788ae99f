"""A tiny HTTP server that answers the publication check as inference would, or refuses to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.services.worker.scripted_trainer import CHECKS

SECRET = "internal-secret"


class InferenceServer(ThreadingHTTPServer):
    """``status`` other than 200 is its answer to everything; ``logprobs`` are what it serves."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.logprobs = CHECKS[0].adapter_logprobs
        self.asked = []
        self.evicted = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def close(self):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body["model"])
        answer = [None, {"2": {"logprob": -9.0}}]
        for token, value in zip(body["prompt"][2:], self.server.logprobs, strict=True):
            answer.append({str(token): {"logprob": value}})
        self._send({"choices": [{"prompt_logprobs": answer}]})

    def do_DELETE(self):
        if self.server.status == 200:
            self.server.evicted.append(self.path.rsplit("/", 1)[1])
        self._send({})

    def _send(self, answer):
        known = self.headers["Authorization"] == f"Bearer {SECRET}"
        text = json.dumps(answer).encode()
        self.send_response(self.server.status if known else 401)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        """Say nothing."""
