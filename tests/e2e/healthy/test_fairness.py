"""A tenant that floods the service, and another that chats."""

import threading
import time
from contextlib import suppress
from statistics import median

import httpx
import pytest

from tests.conftest import wait_until
from tests.running_stack import Customer, RunningStack
from tests.services.inference.server import BASE_MODEL

pytestmark = pytest.mark.stack
FLOOD = 60
"""Streams at once: nearly twice what one tenant's share of the engine runs."""
ALONE = 5
UNDER = 8


def first_token_seconds(customer: Customer, number: int) -> float:
    """Chat with the base model and return how long the first token took."""
    began = time.monotonic()
    answer = customer.client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": f"{number}. Name a colour."}],
        max_tokens=2,
        stream=True,
    )
    with answer:
        for piece in answer:
            if piece.choices and piece.choices[0].delta.content:
                break
    return time.monotonic() - began


def flood(url: str, key: str, begun: threading.Semaphore, stop: threading.Event) -> None:
    """Stream one long answer after the other until told to stop."""
    body = {
        "model": BASE_MODEL,
        "prompt": "Once upon a time",
        "max_tokens": 300,
        "stream": True,
    }
    headers = {"authorization": f"Bearer {key}"}
    with (
        suppress(httpx.HTTPError),
        httpx.Client(timeout=60, trust_env=False) as client,
        client.stream("POST", f"{url}/completions", json=body, headers=headers) as answer,
    ):
        for _ in answer.iter_lines():
            begun.release()
            if stop.is_set():
                return


def test_a_flood_of_one_tenant_leaves_anothers_first_token_about_as_fast(
    stack: RunningStack,
) -> None:
    flooding, other = stack.tenant("flooding"), stack.tenant("chatting")
    first_token_seconds(other, 0)
    alone = median(first_token_seconds(other, number) for number in range(ALONE))
    begun, stop = threading.Semaphore(0), threading.Event()
    threads = [
        threading.Thread(target=flood, args=(stack.base_url, flooding.api_key, begun, stop))
        for _ in range(FLOOD)
    ]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: begun.acquire(blocking=False), "the flood has begun")
        under = [first_token_seconds(other, 100 + number) for number in range(UNDER)]
        assert all(thread.is_alive() for thread in threads[:1]), "the flood still runs"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert median(under) < 4 * alone + 0.5, (alone, under)
