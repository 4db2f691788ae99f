"""Several prompts in one request: one by one upstream, one answer outside; unread streams."""

import json
import socket
import threading
from contextlib import suppress
from typing import Any

import httpx
import pytest

from services.api.completions.fanout import AT_ONCE
from tests.conftest import Database, wait_until
from tests.services.api.conftest import BASE, Api, Exchange, Tenant, Upstream, running_api
from tests.services.api.test_completion_metering import metered  # noqa: F401  a fixture

PROMPTS = ["りんご", "みかん", "ぶどう"]


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Build OpenAI's three counts."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def choices(exchange: Exchange) -> list[dict[str, Any]]:
    """Answer a piece: its prompt, and which of its answers this is."""
    body = exchange.body
    return [
        {"index": i, "text": f"{body['prompt']}{i}", "logprobs": None, "finish_reason": "stop"}
        for i in range(body.get("n", 1))
    ]


def whole(exchange: Exchange) -> None:
    """Answer one piece."""
    found = choices(exchange)
    exchange.send_json(200, {"choices": found, "usage": usage(2, 3 * len(found))})


def streamed(exchange: Exchange) -> None:
    """Stream one piece."""
    exchange.start_stream()
    found = choices(exchange)
    for choice in found:
        exchange.send_event({"choices": [choice], "usage": usage(2, 3)})
    exchange.send_event({"choices": [], "usage": usage(2, 3 * len(found))})
    exchange.send_event("[DONE]")
    exchange.end_stream()


def ask(tenant: Tenant, **body: Any) -> httpx.Response:
    """Ask the base model."""
    return tenant.http.post("/v1/completions", json={"model": BASE, "prompt": PROMPTS, **body})


def counted(lines: list[dict[str, Any]], tenant: Tenant) -> list[dict[str, Any]]:
    """Wait until a completion of the tenant's is metered, and return what was noted."""
    wait_until(lambda: any(line["tenant_id"] == tenant.id for line in lines), "it is metered")
    return [line for line in lines if line["tenant_id"] == tenant.id]


def test_each_prompt_is_a_request_upstream_for_its_tenant(
    tenant: Tenant, upstream: Upstream
) -> None:
    upstream.script = whole
    assert ask(tenant, n=2, max_tokens=5).status_code == 200
    assert sorted(exchange.body["prompt"] for exchange in upstream.seen) == sorted(PROMPTS)
    assert {exchange.body["n"] for exchange in upstream.seen} == {2}
    assert {exchange.headers["x-tailor-tenant"] for exchange in upstream.seen} == {tenant.id}


def test_a_callers_own_tenant_header_is_not_passed_on(tenant: Tenant, upstream: Upstream) -> None:
    upstream.script = whole
    tenant.http.headers["x-tailor-tenant"] = "somebody"
    assert ask(tenant, prompt="a").status_code == 200
    assert upstream.seen[0].headers["x-tailor-tenant"] == tenant.id


def test_the_pieces_read_like_one_answer(
    tenant: Tenant,
    upstream: Upstream,
    metered: list[dict[str, Any]],  # noqa: F811  the fixture
) -> None:
    upstream.script = whole
    answer = ask(tenant, n=2).json()
    assert [(c["index"], c["text"]) for c in answer["choices"]] == [
        (2 * i + j, f"{prompt}{j}") for i, prompt in enumerate(PROMPTS) for j in range(2)
    ]
    assert answer["usage"] == usage(6, 18)
    (line,) = counted(metered, tenant)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (6, 18)


def test_the_pieces_stream_like_one_answer(
    tenant: Tenant,
    upstream: Upstream,
    metered: list[dict[str, Any]],  # noqa: F811  the fixture
) -> None:
    upstream.script = streamed
    lines = ask(tenant, n=2, stream=True, stream_options={"include_usage": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    *pieces, last = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    texts = {piece["choices"][0]["index"]: piece["choices"][0]["text"] for piece in pieces}
    assert texts == {
        2 * i + j: f"{prompt}{j}" for i, prompt in enumerate(PROMPTS) for j in range(2)
    }
    assert len({piece["id"] for piece in [*pieces, last]}) == 1
    assert (last["choices"], last["usage"]) == ([], usage(6, 18))
    (line,) = counted(metered, tenant)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (6, 18)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_one_piece_is_the_answer_and_ends_the_others(
    tenant: Tenant, upstream: Upstream, stream: bool
) -> None:
    left: list[bool] = []
    others = threading.Semaphore(0)

    def script(exchange: Exchange) -> None:
        if exchange.body["prompt"] == PROMPTS[1]:
            others.acquire(timeout=10)
            others.acquire(timeout=10)
            exchange.send_json(429, {"error": {"message": "busy"}})
        else:
            others.release()
            left.append(exchange.was_left())

    upstream.script = script
    answer = ask(tenant, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    wait_until(lambda: left == [True, True], "the other pieces are ended")


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_ends_all_pieces(
    api: Api, tenant: Tenant, upstream: Upstream, stream: bool
) -> None:
    left: list[bool] = []
    upstream.script = lambda exchange: left.append(exchange.was_left())
    body = {"model": BASE, "prompt": PROMPTS, "stream": stream}
    with api.client(tenant.key) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json=body, timeout=0.3)
    wait_until(lambda: left == [True] * 3, "the pieces are ended")


@pytest.mark.parametrize("stream", [False, True])
def test_of_many_prompts_only_some_are_asked_at_once(
    tenant: Tenant, upstream: Upstream, stream: bool
) -> None:
    enough = threading.Event()
    most = [0]
    running = [0]
    lock = threading.Lock()

    def script(exchange: Exchange) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if most[0] >= AT_ONCE:
            enough.set()
        enough.wait(10)
        with lock:
            running[0] -= 1
        (streamed if stream else whole)(exchange)

    upstream.script = script
    answer = ask(tenant, prompt=[f"{i}" for i in range(3 * AT_ONCE)], stream=stream)
    assert answer.status_code == 200
    assert len(upstream.seen) == 3 * AT_ONCE
    assert most[0] == AT_ONCE


def test_a_stream_that_nobody_reads_is_ended_and_metered(
    api_database: Database,
    upstream: Upstream,
    metered: list[dict[str, Any]],  # noqa: F811  the fixture
) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.start_stream()
        text = {"index": 0, "text": "x" * 500_000, "logprobs": None, "finish_reason": None}
        with suppress(OSError):
            for _ in range(400):
                exchange.send_event({"choices": [text], "usage": usage(2, 3)})

    upstream.script = endless
    with running_api(api_database, upstream.url, stream_stall_seconds=0.3) as api:
        tenant = api.new_tenant()
        body = json.dumps({"model": BASE, "prompt": "a", "stream": True}).encode()
        url = httpx.URL(api.url)
        with socket.create_connection((url.host, url.port or 80)) as unread:
            unread.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                + f"authorization: Bearer {tenant.key}\r\n".encode()
                + f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            (line,) = counted(metered, tenant)
    assert (line["outcome"], line["completion_tokens"]) == ("abandoned", 3)
