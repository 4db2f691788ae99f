"""The server's limits, spoken to over bare sockets: heads, silence, connections, odd HTTP."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import PostgresServer, wait_until
from tests.services.api.conftest import Api, Tenant, Upstream, running_api

SECONDS = 0.4
CONNECTIONS = 12


@pytest.fixture(scope="module")
def hasty(postgres: PostgresServer, upstream_server: Upstream) -> Iterator[Api]:
    """An API with little patience and room for few connections."""
    limits: dict[str, Any] = {"receive_seconds": SECONDS, "max_connections": CONNECTIONS}
    with (
        postgres.fresh_database() as database,
        running_api(database, upstream_server.url, **limits) as running,
    ):
        yield running


@contextmanager
def connected(api: Api) -> Iterator[socket.socket]:
    """A bare connection."""
    address = urlsplit(api.url)
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        yield connection


def send(connection: socket.socket, data: bytes) -> None:
    """Send as much as the other side takes."""
    with suppress(ConnectionError):
        connection.sendall(data)


def until_closed(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    found = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionError:
            return found
        if not piece:
            return found
        found += piece


def error_in(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Return status and error of an answer, whose shape is checked."""
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error


HEADS: dict[str, Callable[[], Iterator[bytes]]] = {
    "one long header": lambda: iter([b"GET /v1/models HTTP/1.1\r\nx: ", b"a" * 10**7]),
    "one long header in small pieces": lambda: iter(
        [b"GET /v1/models HTTP/1.1\r\nx: ", *[b"a" * 1000] * 200]
    ),
    "many headers": lambda: iter([b"GET /v1/models HTTP/1.1\r\n", b"a: b\r\n" * 300_000]),
    "a long path": lambda: iter([b"GET /v1/", b"a" * 10**6]),
    "a long header's name": lambda: iter([b"GET / HTTP/1.1\r\n", b"a" * 10**6]),
    "a complete head that is too long": lambda: iter(
        [b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 70_000 + b"\r\n\r\n"]
    ),
}


@pytest.mark.parametrize("pieces", HEADS.values(), ids=HEADS)
def test_a_head_beyond_64_kb_is_a_431_at_once(
    api: Api, pieces: Callable[[], Iterator[bytes]]
) -> None:
    began = time.perf_counter()
    with connected(api) as connection:
        for piece in pieces():
            send(connection, piece)
        answer = until_closed(connection)
    assert error_in(answer)[0] == 431
    assert time.perf_counter() - began < 2
    assert api.client().get("/healthz").status_code == 200


def test_a_431_names_the_limit(api: Api) -> None:
    with connected(api) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nx: ".ljust(64 * 1024, b"a"))
        status, error = error_in(until_closed(connection))
    assert (status, error["code"]) == (431, "headers_too_large")
    assert "65536 bytes" in error["message"]


def test_a_head_just_below_the_limit_and_a_body_far_above_it_are_served(
    api: Api, tenant: Tenant
) -> None:
    long = {"x-long": "a" * 60_000}
    assert tenant.http.get("/v1/models", headers=long).status_code == 200
    body = b'{"model": "nobody", "prompt": "' + b"a" * 200_000 + b'"}'
    for content in (body, iter([body[:3], body[3:]])):
        answer = tenant.http.post("/v1/completions", content=content, headers=long)
        assert answer.json()["error"]["code"] == "model_not_found"


def test_what_follows_the_last_chunk_is_bounded_as_well(api: Api) -> None:
    with connected(api) as connection:
        send(
            connection, b"POST /v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        send(connection, b"1\r\na\r\n0\r\nx: ")
        for _ in range(100):
            send(connection, b"a" * 10_000)
        assert b"200 OK" not in until_closed(connection)


STARTS = {
    "silence": b"",
    "half a request line": b"GET /v1/mod",
    "half a header": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthor",
    "headers without an end": b"GET /v1/models HTTP/1.1\r\nhost: x\r\n",
    "empty lines": b"\r\n\r\n",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_connection_without_a_whole_head_is_closed_in_time(hasty: Api, start: bytes) -> None:
    began = time.perf_counter()
    with connected(hasty) as connection:
        connection.sendall(start)
        answer = until_closed(connection)
    assert SECONDS / 2 < time.perf_counter() - began < 5
    if start:
        status, error = error_in(answer)
        assert (status, error["code"]) == (408, "request_timeout")


def test_a_head_that_drips_has_no_more_time(hasty: Api) -> None:
    began = time.perf_counter()
    with connected(hasty) as connection:
        connection.settimeout(0.05)
        send(connection, b"GET /healthz HTTP/1.1\r\n")
        while time.perf_counter() - began < 5:
            send(connection, b"a: b\r\n")
            try:
                if not connection.recv(1000):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert time.perf_counter() - began < 4


@pytest.mark.parametrize(
    "body", [b"content-length: 100\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n5\r\n{"]
)
def test_a_json_body_that_does_not_come_is_a_408(hasty: Api, body: bytes) -> None:
    key = hasty.new_tenant().key
    with connected(hasty) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + key.encode()
            + b"\r\n"
            + body
        )
        status, error = error_in(until_closed(connection))
    assert (status, error["code"]) == (408, "request_timeout")


def test_an_idle_connection_between_requests_is_kept(hasty: Api) -> None:
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with connected(hasty) as connection:
        for _ in range(2):
            connection.sendall(request)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(SECONDS * 1.5)  # longer than a head may take: the point of this test


def test_connections_beyond_the_limit_are_told_so_and_places_come_back(hasty: Api) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(connected(hasty)) for _ in range(CONNECTIONS + 3)]
        answers = [until_closed(connection) for connection in crowd]
    refused = [error_in(answer) for answer in answers if answer]
    assert len(refused) >= 3
    assert {status for status, _error in refused} == {503}
    assert all("connections" in error["message"] for _status, error in refused)
    wait_until(lambda: hasty.client().get("/healthz").status_code == 200, "there is room again")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01", b"HELLO\r\n\r\n", b"GET\r\n\r\n"])
def test_what_is_not_http_is_a_400_in_the_shape_of_all_errors(api: Api, garbage: bytes) -> None:
    with connected(api) as connection:
        connection.sendall(garbage + b"\r\n\r\n")
        status, error = error_in(until_closed(connection))
    assert (status, error["code"]) == (400, "invalid_http")


def test_an_offer_of_http2_is_declined_and_every_request_answered(api: Api) -> None:
    # Java's HttpClient offers it with each request to a plain address.
    offer = (
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        b"upgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n"
    )
    for _ in range(2):
        with connected(api) as connection:
            connection.sendall(offer)
            answer = until_closed(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer


def test_a_body_that_waits_for_a_100_is_asked_for(api: Api, tenant: Tenant) -> None:
    with connected(api) as connection:
        body = b'{"model": "nobody", "prompt": "x"}'
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            b"authorization: Bearer " + tenant.key.encode() + b"\r\n"
            b"content-length: " + str(len(body)).encode() + b"\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert b"model_not_found" in connection.recv(4096)
