"""Our routing beside turns and vllm-router, over three stand-ins for inference processes.

    python3.11 -m venv .peers/router
    .peers/router/bin/pip install vllm-router==0.1.17 aiohttp orjson uvicorn fastapi
    python -m benchmarks.routing --peer .peers/router/bin/vllm-router

64 adapters are asked as often as popular and unpopular things are (Zipf, 1.1), at random moments,
at half of what the processes can do. A third of the way an adapter that hardly anybody asks gets
half of all requests; after two thirds that is over, and one process is gone. Each stand-in answers
so many at once, runs four adapters at once and keeps 32; bringing one in takes time, as in vLLM.
vllm-router hashes consistently by ``x-session-id``, which says the adapter.
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.replicas.routing import Replica, Router

PROCESSES, SLOTS, PLACES, KEPT, ADAPTERS = 3, 16, 4, 32, 64
EXPONENT = 1.1
ANSWER_SECONDS, IN_SECONDS, READ_SECONDS = 0.4, 0.02, 0.1
"""Of an answer, of bringing a kept adapter in, and of reading one from the store."""
PHASES = ("as usual", "one is popular", "one process is gone")


@dataclass
class StandIn:
    """What a process has done since it was last looked at."""

    port: int
    server: uvicorn.Server | None = None
    answered: int = 0
    brought_in: int = 0
    read: int = 0
    places: OrderedDict[str, None] = field(default_factory=OrderedDict)
    kept: OrderedDict[str, None] = field(default_factory=OrderedDict)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS))

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: Request) -> JSONResponse:
        """Answer as a process would that has one of its slots free, and the adapter in."""
        adapter = (await request.json())["model"]
        async with self.slots:
            read, brought_in = (
                not _used(self.kept, adapter, KEPT),
                not _used(self.places, adapter, PLACES),
            )
            self.answered, self.read = self.answered + 1, self.read + read
            self.brought_in += brought_in
            await asyncio.sleep(ANSWER_SECONDS + IN_SECONDS * brought_in + READ_SECONDS * read)
        message = {"role": "assistant", "content": "x"}
        return JSONResponse({"model": adapter, "choices": [{"index": 0, "message": message}]})

    def look(self) -> tuple[int, int, int]:
        """Return how many were answered, brought in and read since the last look."""
        found = self.answered, self.brought_in, self.read
        self.answered = self.brought_in = self.read = 0
        return found


def _used(held: OrderedDict[str, None], adapter: str, room: int) -> bool:
    """Note that it is used, and say whether it was there."""
    there = adapter in held
    held[adapter] = None
    held.move_to_end(adapter)
    if len(held) > room:
        held.popitem(last=False)
    return there


class InTurns:
    """One after the other."""

    name = "in turns"

    def __init__(self, stand_ins: Sequence[StandIn]) -> None:
        self._urls, self._turn = [each.url for each in stand_ins], 0

    async def ask(self, client: httpx.AsyncClient, adapter: str) -> bool:
        """Ask; a process that does not answer is passed over."""
        for _ in self._urls:
            self._turn += 1
            if await asked(client, self._urls[self._turn % len(self._urls)], adapter):
                return True
        return False


class Ours:
    """Tailor's, as its gateway uses it."""

    name = "Tailor"

    def __init__(self, stand_ins: Sequence[StandIn]) -> None:
        self._router = Router()
        self._replicas = [Replica(str(i), s.url, PLACES, SLOTS) for i, s in enumerate(stand_ins)]

    async def ask(self, client: httpx.AsyncClient, adapter: str) -> bool:
        """Ask; a process that does not answer is passed over."""
        router = self._router
        for replica in router.order(adapter, self._replicas, time.monotonic()):
            router.began(replica.id, adapter, time.monotonic())
            answered = await asked(client, replica.url, adapter)
            router.ended(replica.id, adapter, time.monotonic())
            if answered:
                return True
            router.failed(replica.id, time.monotonic())
        return False


class Peer:
    """vllm-router, a process of its own."""

    name = "vllm-router, by header"

    def __init__(self, program: str, stand_ins: Sequence[StandIn], port: int) -> None:
        command = [program, "--policy", "consistent_hash", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--worker-urls", *(each.url for each in stand_ins)]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def ask(self, client: httpx.AsyncClient, adapter: str) -> bool:
        """Ask the router."""
        return await asked(client, self.url, adapter)


async def asked(client: httpx.AsyncClient, url: str, adapter: str) -> bool:
    """Ask one address; say whether there was an answer."""
    body = {"model": adapter, "messages": [{"role": "user", "content": "?"}]}
    try:
        answer = await client.post(
            f"{url}/v1/chat/completions", json=body, headers={"x-session-id": adapter}
        )
    except httpx.TransportError:
        return False
    return answer.is_success


@asynccontextmanager
async def stand_ins(first_port: int) -> AsyncIterator[list[StandIn]]:
    """Yield listening stand-ins."""
    made = [StandIn(first_port + number) for number in range(PROCESSES)]
    running = []
    for each in made:
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", each.answer, methods=["POST"]),
                Route("/health", lambda _: JSONResponse({})),
                Route("/v1/models", lambda _: JSONResponse({"data": []})),
            ]
        )
        each.server = uvicorn.Server(
            uvicorn.Config(app, port=each.port, log_level="critical", timeout_graceful_shutdown=0)
        )
        running.append(asyncio.create_task(each.server.serve()))
    while not all(each.server and each.server.started for each in made):  # noqa: ASYNC110  no event
        await asyncio.sleep(0.05)
    try:
        yield made
    finally:
        for each in made:
            if each.server:
                each.server.should_exit = True
        await asyncio.gather(*running, return_exceptions=True)


async def measure(arm: Any, processes: list[StandIn], requests: int) -> None:
    """Send all three phases and print a row for each."""
    names = [f"ad_{number}" for number in range(ADAPTERS)]
    usual = [1 / rank**EXPONENT for rank in range(1, ADAPTERS + 1)]
    popular = [*usual[:-1], sum(usual)]
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        for phase, weights in zip(PHASES, (usual, popular, usual), strict=True):
            if phase == PHASES[2]:
                if processes[0].server:
                    processes[0].server.should_exit = True
                await asyncio.sleep(1)
            for each in processes:
                each.look()
            draw, spacing = random.Random(phase), 2 * ANSWER_SECONDS / (PROCESSES * SLOTS)
            times: list[float] = []

            async def one(adapter: str, times: list[float] = times) -> bool:
                began = time.perf_counter()
                well = bool(await arm.ask(client, adapter))
                times.append(time.perf_counter() - began)
                return well

            tasks = []
            for adapter in draw.choices(names, weights, k=requests):
                tasks.append(asyncio.create_task(one(adapter)))
                await asyncio.sleep(draw.expovariate(1 / spacing))
            failed = (await asyncio.gather(*tasks)).count(False)
            show(arm.name, phase, processes, times, failed)


def show(arm: str, phase: str, processes: list[StandIn], times: list[float], failed: int) -> None:
    """Print one row."""
    looks = [each.look() for each in processes]
    answered = sum(look[0] for look in looks) or 1
    busiest = max(look[0] for look in looks) * sum(look[0] > 0 for look in looks) / answered
    times.sort()
    print(
        f"| {arm} | {phase} | {1000 * sum(look[1] for look in looks) / answered:.0f} "
        f"| {1000 * sum(look[2] for look in looks) / answered:.0f} | {busiest:.2f} "
        f"| {statistics.median(times):.2f} s | {times[int(0.99 * len(times))]:.2f} s | {failed} |",
        flush=True,
    )


async def all_arms(peer: str | None, requests: int) -> None:
    """Measure each arm over stand-ins of its own."""
    print("| routing | phase | brought in for 1,000 | read for 1,000 | busiest to mean ", end="")
    print("| median | p99 | failed |\n|---|---|---|---|---|---|---|---|")
    for kind, port in ((InTurns, 18100), (Ours, 18200)):
        async with stand_ins(port) as processes:
            await measure(kind(processes), processes, requests)
    if peer:
        async with stand_ins(18300) as processes:
            arm = Peer(peer, processes, 18390)
            try:
                async with httpx.AsyncClient() as client:
                    while not await asked(client, arm.url, "ad_0"):  # noqa: ASYNC110  another's
                        await asyncio.sleep(0.2)
                await measure(arm, processes, requests)
            finally:
                arm.process.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000, help="in each phase")
    parser.add_argument("--peer", help="the program vllm-router")
    asked_for = parser.parse_args()
    asyncio.run(all_arms(asked_for.peer, asked_for.requests))


if __name__ == "__main__":
    main()
