"""An embeddings endpoint, asked over real HTTP: its answers, its faults, and what is not told."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from services.worker.comparing.embedding import embedder
from services.worker.comparing.settings import EmbeddingSettings
from shared.errors import UpstreamUnavailable

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]
KEY = "sk-very-secret"

pytestmark = pytest.mark.slow  # the indexes take seconds to import


class Endpoint(ThreadingHTTPServer):
    """Answers as a test says and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = reversed_vectors
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a client that has left."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, **body})
        self.server.keys.append(self.headers["Authorization"])
        status, content = self.server.answer(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def reversed_vectors(body: dict[str, Any]) -> tuple[int, bytes]:
    """Vectors that tell the text's length, the last first, as the protocol allows."""
    data = [{"index": i, "embedding": [3.0, len(t)]} for i, t in enumerate(body["input"])]
    return 200, json.dumps({"data": data[::-1]}).encode()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def settings(endpoint: Endpoint, **more: Any) -> EmbeddingSettings:
    return EmbeddingSettings(
        embeddings_url=f"http://127.0.0.1:{endpoint.server_port}/v1",
        embeddings_model="theirs",
        embeddings_api_key=SecretStr(KEY),
        **more,
    )


def test_texts_go_in_batches_with_model_key_and_prefixes_and_come_back_in_order(endpoint):
    model = embedder(settings(endpoint, embeddings_passage_prefix="passage: "))
    vectors = model.passages(["", *("x" * n for n in range(1, 100))])
    assert [len(asked["input"]) for asked in endpoint.asked] == [64, 36]
    assert {(asked["path"], asked["model"]) for asked in endpoint.asked} == {
        ("/v1/embeddings", "theirs")
    }
    assert endpoint.keys[0] == f"Bearer {KEY}"
    assert endpoint.asked[1]["input"][-1] == "passage: " + "x" * 99
    assert vectors[99].tolist() == pytest.approx([3 / (3**2 + 108**2) ** 0.5, 108 / 108.0417], 1e-3)
    assert model.questions([]).shape[0] == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, b"bad key " + KEY.encode()), "status 401"),
        ((500, b"secret row"), "status 500"),
        ((200, b"not json"), "one vector"),
        ((200, b'{"data": []}'), "one vector"),
        ((200, b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}'),
         "one vector"),
        ((200, b'{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}'),
         "one vector"),
    ],
)  # fmt: skip
def test_a_fault_of_the_endpoint_is_a_clear_error_without_its_words(endpoint, answer, said):
    endpoint.answer = lambda _: answer
    with pytest.raises(UpstreamUnavailable, match=said) as raised:
        embedder(settings(endpoint)).questions(["secret row", "b"])
    assert raised.value.code == "embeddings_unavailable"
    assert not {KEY, "secret"} & set(str(raised.value).split())


def test_an_endpoint_that_does_not_answer_or_is_not_there_is_given_up(endpoint):
    ended = threading.Event()
    endpoint.answer = lambda body: (ended.wait(10), reversed_vectors(body))[1]
    with pytest.raises(UpstreamUnavailable, match=r"within 0\.1 s"):
        embedder(settings(endpoint, embeddings_answer_seconds=0.1)).questions(["a"])
    ended.set()
    gone = EmbeddingSettings(embeddings_url="http://127.0.0.1:9/v1", embeddings_model="m")
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        embedder(gone).questions(["a"])


def test_the_key_is_not_shown_and_a_url_needs_a_model(endpoint):
    assert KEY not in repr(settings(endpoint))
    with pytest.raises(ValidationError, match="TAILOR_EMBEDDINGS_MODEL"):
        EmbeddingSettings(embeddings_url="http://x")
