"""Two processes of one base model and two of another: where requests go, and what it saves.

    python -m benchmarks.replicas [--requests 1000] [--answers 20000]

Starts a stack, gives a tenant 64 models of the first base, each of which says a word, and asks them
as often as popular and unpopular things are (Zipf, 1.1), the base models among them:

* through the gateway, and around it to both processes in turns, with other copies of the same
  adapters: how many adapters are read from the store for 1,000 requests;
* at half of the load that it just took: the time to the first token, beside that of one model
  alone that is in memory;
* ``--answers`` of them, all checked: an answer that is another model's is printed.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from shared.db import make_engine
from tests.conftest import short_folder
from tests.e2e.healthy.test_two_replicas import loads
from tests.e2e.published import publish
from tests.e2e.several.test_other_bases import SERVABLE, add
from tests.running_stack import Customer, RunningStack
from tests.services.inference.server import (
    BASE_MODEL,
    MODELS_DIR,
    QUESTIONS,
    copy_of,
    foreign,
    make_sentinels,
)
from tests.services.worker.training.architectures import build
from tests.services.worker.training.conftest import save_tokenizer

OTHER_BASE = "small-qwen3"
ADAPTERS = 64
EXPONENT = 1.1
BASE_SHARE = 0.1
"""Part of the requests that is for the base models."""
CONCURRENCY = 16
WARM_UP = 300
TOKENS = 2

Where = Callable[[str], tuple[str, dict[str, str], str]]
"""URL, headers and the model's name there, for one of ours."""


class Answer(NamedTuple):
    """What was said, and when the first of it arrived, in seconds."""

    model: str
    text: str
    first_token: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=0)
    asked = parser.parse_args()
    with running() as stack:
        measure(stack, asked.requests, asked.answers)


@contextmanager
def running() -> Iterator[RunningStack]:
    """Yield a stack that serves the demo's base and a small random one, twice each."""
    with short_folder() as folder:
        models_dir, source = folder / "models", folder / "source"
        models_dir.mkdir()
        (models_dir / BASE_MODEL).symlink_to(MODELS_DIR / BASE_MODEL)
        build("qwen3", source, **SERVABLE, vocab_size=save_tokenizer(source))
        add(source, OTHER_BASE, models_dir)
        stack = RunningStack({"TAILOR_MODELS_DIR": str(models_dir)})
        try:
            served = ["--model", BASE_MODEL, "--model", OTHER_BASE, "--replicas", "2"]
            stack.command("up", "--detach", "--port", "0", *served)
            yield stack
        finally:
            stack.remove()


def measure(stack: RunningStack, requests: int, answers: int) -> None:
    """Ask in all the ways and print what came of it."""
    urls = [each.url for each in stack.wiring.replicas if each.base_model == BASE_MODEL]
    sentinels = make_sentinels(stack.store_dir, MODELS_DIR)
    words = dict(zip(range(ADAPTERS), itertools.cycle(sentinels), strict=False))

    def copies() -> dict[str, str]:
        made = {n: copy_of(stack.store_dir, sentinels[word]) for n, word in words.items()}
        return {f"{words[n]} {n}": adapter for n, adapter in made.items()}

    tenant, engine = stack.tenant("kumo"), make_engine(stack.system_database_url)
    own = publish(engine, tenant, copies())
    engine.dispose()
    said = {model: name.split()[0] for name, model in own.items()}
    gateway = through(stack, tenant)
    around, by_itself = in_turns(urls, stack.inference_secret), copies()
    said_around = {adapter: name.split()[0] for name, adapter in by_itself.items()}

    print("| asked | requests a second | adapters read for 1,000 requests | foreign answers |")
    print("|---|---|---|---|")
    for title, where, models, expected, bases in (
        ("through the gateway", gateway, list(own.values()), said, [BASE_MODEL, OTHER_BASE]),
        ("both in turns", around, list(by_itself.values()), said_around, [BASE_MODEL]),
    ):
        asyncio.run(ask(where, drawn(models, bases, WARM_UP, seed=1), spacing=0))
        before, began = total(urls, stack), time.monotonic()
        given = asyncio.run(ask(where, drawn(models, bases, requests, seed=2), spacing=0))
        seconds, read = time.monotonic() - began, total(urls, stack) - before
        wrong = check(expected, given)
        print(
            f"| {title} | {requests / seconds:.1f} | {1000 * read / requests:.0f} | {wrong} |",
            flush=True,
        )
        if where is gateway:
            rate = requests / seconds
    popular = next(iter(own.values()))
    alone = asyncio.run(ask(gateway, [popular] * 40, spacing=2 / rate))
    half = drawn(list(own.values()), [BASE_MODEL, OTHER_BASE], requests // 2, seed=3)
    loaded = asyncio.run(ask(gateway, half, spacing=2 / rate))
    for title, given in (("one model alone", alone), ("all at half load", loaded)):
        first = sorted(answer.first_token for answer in given)
        print(
            f"first token, {title}: median {statistics.median(first):.3f} s, "
            f"p99 {first[int(0.99 * len(first))]:.3f} s",
            flush=True,
        )
    if answers:
        asked = drawn(list(own.values()), [BASE_MODEL, OTHER_BASE], answers, seed=4)
        given = asyncio.run(ask(gateway, asked, spacing=0))
        print(f"{check(said, given)} foreign answers in {len(given)}")


def drawn(models: Sequence[str], bases: Sequence[str], number: int, seed: int) -> list[str]:
    """Draw which model is asked each time."""
    draw = random.Random(seed)
    weights = [(1 - BASE_SHARE) / rank**EXPONENT for rank in range(1, len(models) + 1)]
    scale = sum(weights) / (1 - BASE_SHARE)
    rest = [BASE_SHARE * scale / len(bases)] * len(bases)
    return draw.choices([*models, *bases], [*weights, *rest], k=number)


async def ask(where: Where, models: Sequence[str], spacing: float) -> list[Answer]:
    """Ask each: CONCURRENCY at a time, or at random moments ``spacing`` seconds apart."""
    draw, gate = random.Random(0), asyncio.Semaphore(CONCURRENCY if not spacing else 10_000)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=600, limits=limits, trust_env=False) as client:

        async def one(model: str, question: str) -> Answer:
            async with gate:
                return await stream(client, where(model), model, question)

        tasks = []
        for model in models:
            if spacing:
                await asyncio.sleep(draw.expovariate(1 / spacing))
            tasks.append(asyncio.create_task(one(model, draw.choice(QUESTIONS))))
        return list(await asyncio.gather(*tasks))


async def stream(
    client: httpx.AsyncClient, where: tuple[str, dict[str, str], str], model: str, question: str
) -> Answer:
    """Ask one question and read the answer as it comes."""
    url, headers, name = where
    body: dict[str, Any] = {
        "model": name,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
    }
    began, first, text = time.perf_counter(), 0.0, ""
    async with client.stream("POST", url, headers=headers, json=body) as response:
        if response.is_error:
            raise RuntimeError((await response.aread()).decode())
        async for line in response.aiter_lines():
            if line.startswith("data: {") and (said := piece(line)):
                first, text = first or time.perf_counter() - began, text + said
    return Answer(model, text, first or time.perf_counter() - began)


def piece(line: str) -> str:
    """Return the text of one event of a stream."""
    choices = httpx.Response(200, content=line.removeprefix("data: ")).json()["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


def through(stack: RunningStack, tenant: Customer) -> Where:
    """Ask the gateway as the tenant."""
    headers = {"authorization": f"Bearer {tenant.api_key}"}
    return lambda model: (f"{stack.base_url}/chat/completions", headers, model)


def in_turns(urls: Sequence[str], secret: str) -> Where:
    """Ask the processes themselves, one after the other."""
    turn = itertools.cycle(urls)
    headers = {"authorization": f"Bearer {secret}"}
    return lambda model: (f"{next(turn)}/v1/chat/completions", headers, model)


def total(urls: Sequence[str], stack: RunningStack) -> int:
    """Return how many adapters these processes have read from the store so far."""
    return sum(loads(url, stack.inference_secret) for url in urls)


def check(said: dict[str, str], given: Sequence[Answer]) -> int:
    """Return how many answers are another model's, and print the first of them."""
    ours = [(answer.model, answer.text) for answer in given if answer.model != OTHER_BASE]
    wrong = foreign(said, ours)
    for each in wrong[:5]:
        print("foreign:", each)
    return len(wrong)


if __name__ == "__main__":
    main()
