"""The API behind Debian's nginx with the configuration that operators install."""

import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import wait_until
from tests.nginx import Nginx, needs_nginx, running_nginx
from tests.services.api.conftest import BASE, Api, Exchange, Tenant, Upstream

pytestmark = needs_nginx
ASK: list[Any] = [{"role": "user", "content": "営業時間は?"}]
SILENT_SECONDS = 125


@pytest.fixture(scope="module")
def nginx(api: Api) -> Iterator[Nginx]:
    """The proxy before the API."""
    with running_nginx(api.url) as proxy:
        yield proxy


@pytest.fixture
def outside(nginx: Nginx, tenant: Tenant) -> Iterator[httpx.Client]:
    """A tenant's HTTP client that calls the proxy."""
    with nginx.client(tenant.key) as client:
        yield client


@pytest.fixture
def official(nginx: Nginx, tenant: Tenant) -> Iterator[openai.OpenAI]:
    """The official client that calls the proxy."""
    with openai.DefaultHttpxClient(verify=nginx.tls, trust_env=False) as http:
        yield openai.OpenAI(
            base_url=f"{nginx.url}/v1", api_key=tenant.key, http_client=http, max_retries=0
        )


def piece(text: str) -> dict[str, Any]:
    """Build a piece of a stream as vLLM does."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return {"choices": [choice], "usage": None}


def stream(official: openai.OpenAI) -> Iterator[str]:
    """Ask for a stream; yield its texts as they come."""
    asked = official.chat.completions.create(model=BASE, messages=ASK, stream=True)
    return (chunk.choices[0].delta.content or "" for chunk in asked)


def error_in(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of an error, whose form is checked."""
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert answer.headers["x-request-id"].startswith("req_")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_tls_is_spoken(nginx: Nginx, version: str) -> None:
    assert handshake(nginx, ssl.TLSVersion[version]) == version.replace("_", ".")


def test_older_tls_is_refused(nginx: Nginx) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ssl.SSLError, match="alert protocol version"):
            handshake(nginx, ssl.TLSVersion.TLSv1_1)


def handshake(nginx: Nginx, version: ssl.TLSVersion) -> str | None:
    """Return the version that was agreed on with a client that speaks only this one."""
    context = ssl.create_default_context(cafile=nginx.folder / "tailor.crt")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with connected(nginx, context) as connection:
        return connection.version()


@contextmanager
def connected(nginx: Nginx, context: ssl.SSLContext | None = None) -> Iterator[ssl.SSLSocket]:
    """A bare connection to the TLS port."""
    port = httpx.URL(nginx.url).port or 0
    with (
        socket.create_connection(("127.0.0.1", port), 10) as connection,
        (context or nginx.tls).wrap_socket(connection, server_hostname="localhost") as spoken,
    ):
        yield spoken


def test_plain_http_is_sent_to_https_with_its_method(nginx: Nginx) -> None:
    headers = {"host": "evil.example.com"}
    with httpx.Client(trust_env=False) as client:
        answer = client.post(f"{nginx.plain_url}/v1/models?limit=1", headers=headers)
    assert answer.status_code == 308
    assert answer.headers["location"] == "https://localhost/v1/models?limit=1"


def test_each_piece_of_a_stream_arrives_before_the_next_is_sent(
    official: openai.OpenAI, upstream: Upstream
) -> None:
    seen = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        for text in "九時から":
            exchange.send_event(piece(text))
            assert seen.wait(10)
            seen.clear()
        exchange.send_event("[DONE]")
        exchange.end_stream()

    upstream.script = script
    texts = []
    for text in stream(official):
        texts.append(text)
        seen.set()
    assert texts == list("九時から")


def test_a_caller_who_leaves_ends_the_answer_inside(
    official: openai.OpenAI, upstream: Upstream
) -> None:
    left: list[bool] = []

    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.send_event(piece("九"))
        left.append(exchange.was_left())

    upstream.script = script
    asked = official.chat.completions.create(model=BASE, messages=ASK, stream=True)
    next(iter(asked))
    asked.close()
    wait_until(lambda: left, "inference is told")
    assert left == [True]


@pytest.mark.proof
@pytest.mark.parametrize("pieces_before", [0, 1])
def test_a_stream_that_is_silent_for_two_minutes_is_alive_and_ends_properly(
    official: openai.OpenAI, upstream: Upstream, pieces_before: int
) -> None:
    never = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        for text in ["九"] * pieces_before:
            exchange.send_event(piece(text))
        never.wait(SILENT_SECONDS)
        exchange.send_event(piece("時"))
        exchange.send_event("[DONE]")
        exchange.end_stream()

    upstream.script = script
    assert list(stream(official)) == ["九"] * pieces_before + ["時"]


INSIDE = [
    "/admin/tenants",
    "/admin/tenants/org-x/keys",
    "/admin",
    "/metrics",
    "/metrics/",
    "//admin/tenants",
    "/./metrics",
    "/v1/../metrics",
    "/v1//../metrics",
    "/v1/%2e%2e/metrics",
    "/v1/..%2fmetrics",
    "/%6detrics",
    "/healthz/../metrics",
    "/v1",
    "/error",
    "/",
]


@pytest.mark.parametrize("path", INSIDE)
def test_what_is_for_the_inside_is_closed_outside_also_to_the_admin_key(
    api: Api, nginx: Nginx, path: str
) -> None:
    with nginx.client(api.admin_key) as client:
        answer = client.get("/", extensions={"target": path.encode()})
    assert error_in(answer) == (404, "unknown_url")


def test_inside_the_same_paths_answer(api: Api) -> None:
    assert {api.admin().get(path).status_code for path in ("/admin/tenants", "/metrics")} == {200}


def test_health_and_the_api_are_open(outside: httpx.Client) -> None:
    paths = ("/healthz", "/readyz", "/v1/models", "//v1//models")
    found = {path: outside.get("/", extensions={"target": path.encode()}) for path in paths}
    assert {path: answer.status_code for path, answer in found.items()} == dict.fromkeys(paths, 200)
    assert {answer.headers["server"] for answer in found.values()} == {"nginx"}


class Recorder(HTTPServer):
    """Remembers the headers of each request, and the connection it came by."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, list[str]]]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): self.headers.get_all(name) or [] for name in self.headers}
                recorder.seen.append((self.client_address[1], headers))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A server in the API's place that shows what the proxy passes on."""
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_who_called_is_said_by_the_proxy_not_by_the_caller(recorder: Recorder) -> None:
    forged = [("X-Forwarded-For", "203.0.113.9"), ("x-forwarded-for", "198.51.100.7")]
    with running_nginx(f"http://127.0.0.1:{recorder.server_port}") as nginx, nginx.client() as http:
        http.get("/v1/models", headers=[*forged, ("X-Forwarded-Proto", "http")])
        http.get("/v1/models")
    for _, headers in recorder.seen:
        assert headers["x-forwarded-for"] == ["127.0.0.1"]
        assert headers["x-forwarded-proto"] == ["https"]
        assert headers["host"] == ["localhost"]
    assert len(recorder.seen) == 2
    assert len({port for port, _ in recorder.seen}) == 1, "one connection for both"


REFUSED = {
    b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 629145600": (413, "payload_too_large"),
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 20_000: (431, "headers_too_large"),
    b"GET /v1/models HTTP/1.1\r\nhost: x" + b"\r\nx: aaaaaaa" * 7_000: (431, "headers_too_large"),
    b"GET /v1/" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x": (431, "headers_too_large"),
    b"GET /v1/%zz HTTP/1.1\r\nhost: x": (400, "invalid_http"),
    b"GET /v1/models HTTP/1.1": (400, "invalid_http"),
    b"hello": (400, "invalid_http"),
    b"TRACE /v1/models HTTP/1.1\r\nhost: x": (405, "method_not_allowed"),
}


@pytest.mark.parametrize(
    ("head", "expected"), REFUSED.items(), ids=[head[:60].decode() for head in REFUSED]
)
def test_what_the_proxy_refuses_itself_has_openais_shape_and_a_request_id(
    nginx: Nginx, head: bytes, expected: tuple[int, str]
) -> None:
    with connected(nginx) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert error_in(answered(connection)) == expected


def answered(connection: ssl.SSLSocket) -> httpx.Response:
    """Read one answer."""
    answer = HTTPResponse(connection)
    answer.begin()
    return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def test_plain_http_on_the_tls_port_is_told_so(nginx: Nginx) -> None:
    with httpx.Client(trust_env=False) as client:
        answer = client.get(nginx.url.replace("https", "http"))
    assert error_in(answer) == (400, "invalid_http")


def test_while_the_api_is_away_or_silent_the_answer_is_an_error_to_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with running_nginx(url, proxy_read_timeout="1s") as nginx, nginx.client() as http:
            answers = [http.get("/v1/models")]
            silent.close()
            answers += [http.get("/v1/models")]
    for answer in answers:
        assert error_in(answer) == (503, "service_unavailable")
        assert answer.headers["retry-after"] == "2"


def test_the_apis_own_errors_pass_as_they_are(api: Api, nginx: Nginx) -> None:
    with nginx.client("tl-wrong") as stranger:
        answer = stranger.get("/v1/models")
        missing = stranger.get("/v1/nowhere")
    assert error_in(answer) == error_in(missing) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    written = (nginx.folder / "tailor.access.log").read_text()
    assert answer.headers["x-request-id"] in written


def test_an_upload_with_a_wrong_key_is_told_so_before_it_is_sent(nginx: Nginx) -> None:
    head = b"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer tl-wrong\r\n"
    kind = b"content-type: multipart/form-data; boundary=b\r\ncontent-length: 500000000\r\n\r\n"
    with connected(nginx) as connection:
        connection.sendall(head + kind + bytes(2**20))
        assert error_in(answered(connection)) == (401, "invalid_api_key")
