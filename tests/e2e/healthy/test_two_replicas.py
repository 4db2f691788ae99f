"""A second inference process joins the running stack, answers, is killed: nobody notices."""

import asyncio
import random
import re
from collections.abc import Iterator
from contextlib import suppress

import httpx
import psutil
import pytest
from sqlalchemy import Engine, delete
from sqlalchemy.exc import OperationalError

from shared.db import make_engine, transaction
from shared.replicas.models import InferenceReplica
from tests.conftest import short_folder, wait_until
from tests.e2e.published import homes, publish
from tests.running_stack import Customer, RunningStack
from tests.services.inference.server import (
    BASE_MODEL,
    Inference,
    Server,
    answers,
    copy_of,
    foreign,
)

pytestmark = pytest.mark.stack
FEW, MANY = 5, 240
"""Answers of each of two tenants before the kill, and while one is killed."""
EACH = 3
"""So many adapters at least are at home in each process."""


@pytest.fixture(scope="module")
def engine(stack: RunningStack) -> Iterator[Engine]:
    engine = make_engine(stack.system_database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def second(stack: RunningStack, inference: Inference, engine: Engine) -> Iterator[Server]:
    """Another process of the same base, which nobody was told of."""
    with short_folder() as folder:
        server = Server(folder, inference.store_dir, inference.models_dir)
        server.start(
            {
                "TAILOR_INFERENCE_SECRET": stack.inference_secret,
                "TAILOR_INFERENCE_DATABASE_URL": stack.wiring.inference_database_url,
            }
        )
        try:
            server.wait_ready()
            yield server
        finally:
            kill(server)
            # As the last test's, this may come after the stack is gone.
            with suppress(OperationalError), transaction(engine) as session:
                url = server.inference.url
                session.execute(delete(InferenceReplica).where(InferenceReplica.url == url))


@pytest.fixture(scope="module")
def adapters(
    inference: Inference, sentinels: dict[str, str], engine: Engine, second: Server
) -> dict[str, str]:
    """Adapters of their own by name, the word that each says first: some for each process."""
    wait_until(lambda: len(homes(engine, [])) == 2, "both are registered")
    made: dict[str, str] = {}
    for number in range(20):
        word = list(sentinels)[number % len(sentinels)]
        made[f"{word} {number}"] = copy_of(inference.store_dir, sentinels[word])
        if all(len(own) >= EACH for own in homes(engine, made.values()).values()):
            return made
    pytest.fail("the adapters are not spread")


def kill(server: Server) -> None:
    """End it and its vLLM as a power cut would."""
    if server.process is None or server.process.poll() is not None:
        return
    supervisor = psutil.Process(server.process.pid)
    for process in [supervisor, *supervisor.children(recursive=True)]:
        process.kill()
    server.process.wait()


def loads(url: str, secret: str) -> int:
    """Return how many adapters a process has looked for and found."""
    headers = {"authorization": f"Bearer {secret}"}
    text = httpx.get(f"{url}/metrics", headers=headers, trust_env=False).text
    found = re.search(r'^tailor_adapter_loads_total\{outcome="found"\} (\S+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def gateway(stack: RunningStack, tenant: Customer, inference: Inference) -> Inference:
    """Return the stack's gateway as one tenant asks it."""
    url = stack.base_url.removesuffix("/v1")
    return Inference(url, tenant.api_key, inference.store_dir, inference.models_dir)


def test_five_hundred_answers_of_two_processes_are_each_from_the_model_asked_though_one_is_killed(
    stack: RunningStack,
    inference: Inference,
    engine: Engine,
    adapters: dict[str, str],
    second: Server,
) -> None:
    first_url, second_url = inference.url, second.inference.url
    own = homes(engine, adapters.values())
    tenants = [stack.tenant("kumo"), stack.tenant("nami")]
    names = list(adapters)
    models = [
        publish(engine, tenant, {name: adapters[name] for name in names[turn::2]})
        for turn, tenant in enumerate(tenants)
    ]

    async def ask(number: int, concurrency: int) -> list[list[tuple[str, str]]]:
        """Ask for ``number`` answers of each tenant's, both at once; of each model at least one."""
        draw = random.Random(number)
        return await asyncio.gather(
            *(
                answers(
                    gateway(stack, tenant, inference),
                    [*mine.values(), *draw.choices([*mine.values(), BASE_MODEL], k=number)],
                    concurrency,
                )
                for tenant, mine in zip(tenants, models, strict=True)
            )
        )

    async def ask_and_kill() -> list[list[tuple[str, str]]]:
        asking = asyncio.create_task(ask(MANY, concurrency=12))
        await asyncio.sleep(2)  # until many are on their way
        kill(second)
        return await asking

    before = [loads(url, stack.inference_secret) for url in (first_url, second_url)]
    # So few at once that none is sent elsewhere because its own process is busy.
    given = asyncio.run(ask(FEW, concurrency=2))
    after = [loads(url, stack.inference_secret) for url in (first_url, second_url)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [
        len(own[first_url]),
        len(own[second_url]),
    ]
    given += asyncio.run(ask_and_kill())
    assert sum(map(len, given)) >= 500
    words = {model: name.split()[0] for mine in models for name, model in mine.items()}
    assert foreign(words, [pair for heard in given for pair in heard]) == []
    # Only what was at home in the killed one has moved.
    moved = loads(first_url, stack.inference_secret) - after[0]
    assert moved == len(own[second_url])
