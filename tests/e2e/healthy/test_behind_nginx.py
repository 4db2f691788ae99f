"""The whole stack behind Debian's nginx: chats, what is closed, and a training file of 500 MB."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.e2e.jobs import BASE_MODEL
from tests.nginx import Nginx, needs_nginx, running_nginx
from tests.running_stack import RunningStack

pytestmark = [pytest.mark.stack, pytest.mark.proof, needs_nginx]
MB = 10**6
FILE_BYTES = 500 * MB


@pytest.fixture(scope="module")
def nginx(stack: RunningStack) -> Iterator[Nginx]:
    with running_nginx(stack.base_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def official(stack: RunningStack, nginx: Nginx) -> Iterator[openai.OpenAI]:
    """The official client of a tenant, over TLS."""
    key = stack.tenant("outside").api_key
    with openai.DefaultHttpxClient(verify=nginx.tls, trust_env=False) as http:
        yield openai.OpenAI(
            base_url=f"{nginx.url}/v1", api_key=key, http_client=http, max_retries=0
        )


def test_the_official_client_chats_over_tls_piece_by_piece(official: openai.OpenAI) -> None:
    began = time.monotonic()
    asked = official.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": "Count from one to one hundred."}],
        max_tokens=100,
        stream=True,
    )
    arrived = [time.monotonic() - began for _ in asked]
    print(f"{len(arrived)} pieces; first after {arrived[0]:.2f} s, last after {arrived[-1]:.2f} s")
    assert len(arrived) > 5
    assert arrived[0] < arrived[-1] / 2


@pytest.mark.parametrize("path", ["/admin/tenants", "/metrics"])
def test_what_is_for_the_inside_is_closed_outside_while_it_answers_inside(
    stack: RunningStack, nginx: Nginx, path: str
) -> None:
    inside = stack.base_url.removesuffix("/v1") + path
    headers = {"authorization": f"Bearer {stack.admin_key}"}
    assert httpx.get(inside, headers=headers, trust_env=False).status_code == 200
    with nginx.client(stack.admin_key) as client:
        closed = client.get(path)
    assert (closed.status_code, closed.json()["error"]["code"]) == (404, "unknown_url")


def test_a_training_file_of_500_mb_is_taken_and_held_back_nowhere(
    stack: RunningStack, nginx: Nginx, official: openai.OpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "handbook.jsonl"
    rows = write_rows(path)
    with watched(stack, nginx) as most:
        began = time.monotonic()
        file = official.files.create(file=path, purpose="fine-tune")
        seconds = time.monotonic() - began
    print(f"{file.bytes / MB:.0f} MB, {rows} rows, in {seconds:.0f} s; at most, in MB:", most)
    assert (file.bytes, file.status) == (path.stat().st_size, "processed")
    assert json.loads(file.to_json())["report"]["rows"] == rows
    assert most["held back by nginx"] == 0
    assert most["more memory of the API"] < 64
    assert most["on disk while it came in"] < 2.1 * FILE_BYTES / MB  # the file and its rows
    official.files.delete(file.id)


def write_rows(path: Path) -> int:
    """Write a training file of ``FILE_BYTES``; return its number of rows."""
    answer = "It says what to do when the lid is open. " * 25
    count = 0
    with path.open("w") as file:
        while file.tell() < FILE_BYTES:
            turns = [
                {"role": "user", "content": f"What does section {count} of the handbook say?"},
                {"role": "assistant", "content": f"Section {count}: {answer}"},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
            count += 1
    return count


@contextmanager
def watched(stack: RunningStack, nginx: Nginx) -> Iterator[dict[str, float]]:
    """Look twenty times a second; yield the most that was seen, in MB."""
    api = psutil.Process(stack.pid_of("api"))
    before = api.memory_info().rss
    looks = {
        "more memory of the API": lambda: api.memory_info().rss - before,
        "on disk while it came in": lambda: size_below(stack.store_dir / "incoming"),
        "held back by nginx": nginx.held_back,
    }
    most = dict.fromkeys(looks, 0.0)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            for name, see in looks.items():
                most[name] = max(most[name], round(see() / MB, 1))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def size_below(folder: Path) -> int:
    """Return the bytes below a folder whose files come and go."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(top) / name).stat().st_size
    return total
