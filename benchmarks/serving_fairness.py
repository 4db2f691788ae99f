"""What one tenant's first token costs while another floods the service.

    python -m benchmarks.serving_fairness [--only chats,streams] [--seconds 40]

Starts a stack, gives two tenants models of their own, and lets tenant 1 do one thing after the
other while tenant 2 chats, one chat at a time, with its own model. The flood comes from a process
of its own. Prints a markdown table; nothing in it depends on how serving works inside, so older
versions can be measured with the same file. Needs the base model in ``.models``.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx

import shared.db.tables  # noqa: F401  the rows that adapters refer to
from shared.adapters.models import Adapter
from shared.catalog import load_catalog
from shared.db import make_engine, transaction
from shared.ids import new_id
from shared.storage import LocalStore
from tests.running_stack import Customer, RunningStack
from tests.services.inference.server import BASE_MODEL, MODELS_DIR

ALONE = 20
"""Chats of tenant 2 that are measured without any flood."""
HEAD_START_SECONDS = 4.0
"""The flood is this old when tenant 2 asks for the first time."""
DRAIN_SECONDS = 90
"""After a flood has been cut off the service gets this long to be idle again."""
LONG = "The quick brown fox jumps over the lazy dog. " * 190
"""About 1,900 tokens."""


@dataclass(frozen=True)
class Flooder:
    """Tenant 1: where it sends its requests, and its four models."""

    base_url: str
    api_key: str
    models: tuple[str, ...]

    def client(self) -> httpx.AsyncClient:
        """Return a client that opens as many connections as it needs."""
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers={"authorization": f"Bearer {self.api_key}"},
            timeout=None,  # noqa: S113  the process is ended from outside
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )


@dataclass(frozen=True)
class Reading:
    """One chat of tenant 2, in seconds."""

    first_token: float
    step: float
    """Between two of its tokens."""
    answered: bool


async def many(flooder: Flooder, bodies: list[dict[str, Any]], path: str) -> None:
    """Send all requests at once and read every answer."""

    async def send(body: dict[str, Any]) -> None:
        async with client.stream("POST", path, json=body) as response:
            async for _ in response.aiter_bytes():
                pass

    async with flooder.client() as client:
        await asyncio.gather(*map(send, bodies), return_exceptions=True)


def chat(model: str, number: int, **options: Any) -> dict[str, Any]:
    """Build a chat whose beginning is its own."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"{number}. Tell a very long story."}],
        **options,
    }


async def chats(flooder: Flooder) -> None:
    """500 chats of 32 tokens."""
    bodies = [chat(flooder.models[0], number, max_tokens=32) for number in range(500)]
    await many(flooder, bodies, "chat/completions")


async def streams(flooder: Flooder) -> None:
    """200 streams of 64 tokens."""
    bodies = [chat(flooder.models[0], n, max_tokens=64, stream=True) for n in range(200)]
    await many(flooder, bodies, "chat/completions")


async def answers(flooder: Flooder) -> None:
    """One request: 16 prompts, n=8, 256 tokens."""
    prompts = [f"Story number {number}:" for number in range(16)]
    body = {"model": flooder.models[0], "prompt": prompts, "n": 8, "max_tokens": 256}
    await many(flooder, [body], "completions")


async def prompts(flooder: Flooder) -> None:
    """Two requests: 16 prompts of 1,900 tokens, max_tokens=1."""
    bodies = [
        {
            "model": flooder.models[0],
            "prompt": [f"{request} {number} {LONG}" for number in range(16)],
            "max_tokens": 1,
        }
        for request in range(2)
    ]
    await many(flooder, bodies, "completions")


async def thousand(flooder: Flooder) -> None:
    """1,000 concurrent chats of 32 tokens over four models, every other one a stream."""
    bodies = [
        chat(flooder.models[number % 4], number, max_tokens=32, stream=number % 8 < 4)
        for number in range(1000)
    ]
    await many(flooder, bodies, "chat/completions")


async def four_models(flooder: Flooder) -> None:
    """Four streams on four models: n=8, 1,000 tokens."""
    bodies = [chat(model, 0, n=8, max_tokens=1000, stream=True) for model in flooder.models]
    await many(flooder, bodies, "chat/completions")


async def unread(flooder: Flooder) -> None:
    """The same four streams with log-probabilities, and nobody reads them."""
    url = httpx.URL(flooder.base_url)
    writers = []
    for model in flooder.models:
        options = {"n": 8, "max_tokens": 1000, "stream": True, "logprobs": True, "top_logprobs": 5}
        body = json.dumps(chat(model, 0, **options)).encode()
        _, writer = await asyncio.open_connection(url.host, url.port, limit=1)
        head = (
            f"POST {url.path}/chat/completions HTTP/1.1\r\nhost: {url.host}\r\n"
            f"authorization: Bearer {flooder.api_key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        writers.append(writer)
    await asyncio.sleep(600)


Scenario = Callable[[Flooder], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (chats, streams, answers, prompts, thousand, four_models, unread)
}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=40)
    asked = parser.parse_args()
    stack = RunningStack()
    try:
        stack.up()
        measure(stack, asked.only.split(","), asked.seconds)
    finally:
        stack.remove()


def measure(stack: RunningStack, names: list[str], seconds: float) -> None:
    """Let tenant 1 flood the stack in each of the ways."""
    flooding, other = stack.tenant("flood"), stack.tenant("other")
    models = published(stack, [flooding] * 4 + [other])
    flooder = Flooder(stack.base_url, flooding.api_key, tuple(models[:4]))
    probe = Probe(stack, other, models[4])
    alone = probe.alone()
    print("| tenant 1 sends | chats | first token: median | p95 | max | a step |")
    print("|---|---|---|---|---|---|")
    show("nothing", alone)
    for name in names:
        with flood(SCENARIOS[name], flooder) as process:
            readings = probe.during(process, seconds)
        show((SCENARIOS[name].__doc__ or "").rstrip("."), readings)
        probe.wait_idle(alone)


def published(stack: RunningStack, owners: list[Customer]) -> list[str]:
    """Give each owner an adapter that changes nothing; return the public names.

    A trained model would end its answers by itself, long before the flood's limits.
    """
    # The floods' processes import this file, too, and need no torch.
    import torch  # noqa: PLC0415  as said

    from tests.services.inference.sentinels import publish  # noqa: PLC0415  likewise

    entry, store = load_catalog().get(BASE_MODEL), LocalStore(stack.store_dir)
    nothing = torch.zeros(576), torch.zeros(1536)
    engine = make_engine(stack.system_database_url)
    names = []
    with transaction(engine) as session:
        for owner in owners:
            adapter = publish(store, entry, MODELS_DIR, nothing[1], nothing[0])
            names.append(f"ft:{BASE_MODEL}:{owner.name}::{new_id('')[-8:].lower()}")
            session.add(
                Adapter(
                    id=adapter,
                    tenant_id=owner.id,
                    job_id=None,
                    kind="final",
                    model=names[-1],
                    step=1,
                    base_model=BASE_MODEL,
                    base_sha256="0" * 64,
                    metrics={"step": 1, "train_loss": 0.5},
                )
            )
    engine.dispose()
    return names


@contextmanager
def flood(scenario: Scenario, flooder: Flooder) -> Iterator[Any]:
    """Run one of the floods in a process of its own; cut it off at the end."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=_flood, args=(scenario.__name__, flooder, begun), daemon=True)
    process.start()
    try:
        begun.wait()
        time.sleep(HEAD_START_SECONDS)
        yield process
    finally:
        process.kill()
        process.join()


def _flood(name: str, flooder: Flooder, begun: Any) -> None:
    begun.set()
    asyncio.run(SCENARIOS[name](flooder))


class Probe:
    """Tenant 2, which chats with its model."""

    def __init__(self, stack: RunningStack, customer: Customer, model: str) -> None:
        self._model = model
        self._asked = 0
        self._client = httpx.Client(
            base_url=stack.base_url,
            headers={"authorization": f"Bearer {customer.api_key}"},
            trust_env=False,
        )

    def alone(self) -> list[Reading]:
        """Measure without any flood, warm."""
        for _ in range(3):
            self.chat(60)
        return [self.chat(60) for _ in range(ALONE)]

    def during(self, process: Any, seconds: float) -> list[Reading]:
        """Chat until the flood has ended or the time is up; at least once."""
        until = time.monotonic() + seconds
        readings = [self.chat(seconds)]
        while process.is_alive() and (left := until - time.monotonic()) > 0:
            readings.append(self.chat(max(left, 5)))
        return readings

    def wait_idle(self, alone: list[Reading]) -> None:
        """Return when a chat is about as fast as it was alone."""
        usual = statistics.median(reading.first_token for reading in alone)
        until = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < until and self.chat(DRAIN_SECONDS).first_token > 2 * usual:
            time.sleep(1)

    def chat(self, patience: float) -> Reading:
        """Ask for four tokens and time them."""
        self._asked += 1
        body = chat(self._model, 10_000 + self._asked, max_tokens=4, temperature=0, stream=True)
        began = time.perf_counter()
        times: list[float] = []
        try:
            with self._client.stream(
                "POST", "chat/completions", json=body, timeout=patience
            ) as response:
                response.raise_for_status()
                times.extend(
                    time.perf_counter() - began
                    for line in response.iter_lines()
                    if '"content"' in line and '"content":""' not in line
                )
        except httpx.TimeoutException:
            return Reading(time.perf_counter() - began, 0, answered=False)
        steps = [after - before for before, after in pairwise(times)]
        return Reading(times[0], statistics.fmean(steps) if steps else 0, answered=True)


def show(title: str, readings: list[Reading]) -> None:
    """Print one row."""
    first = sorted(reading.first_token for reading in readings)
    p95 = first[min(len(first) - 1, int(len(first) * 0.95))]
    step = statistics.median(reading.step for reading in readings)
    given_up = "" if all(reading.answered for reading in readings) else " (given up)"
    print(
        f"| {title} | {len(first)} | {statistics.median(first):.2f} s | {p95:.2f} s |"
        f" {first[-1]:.2f} s{given_up} | {step:.2f} s |",
        flush=True,
    )


if __name__ == "__main__":
    main()
