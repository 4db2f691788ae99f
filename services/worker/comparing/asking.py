"""Questions to the inference service, some at a time, as one tenant's requests.

A service that is away, starting or busy is asked again until it answers: a comparison outlasts its
restarts. What it refuses for good (a prompt longer than the context) is an answer, too: a failed
one. Answers are handed on about every second, so that little is lost with the process.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import httpx

from services.worker.comparing.orders import Orders
from services.worker.comparing.prompts import Turn
from shared.ids import is_adapter_id
from shared.inference import TOO_LONG_PARAMS, BrokenStream, cache_salt, events
from shared.replicas.directory import NobodyServes
from shared.settings import TENANT_HEADER

SAVE_SECONDS = 1.0
LISTENING_SECONDS = 0.1
"""The most by which an order is heard late."""
SILENCE_SECONDS = 300.0
"""An answer may wait for other tenants' requests before it begins."""
PAUSES_SECONDS = (0.5, 1.0, 2.0, 5.0)
"""Between tries; the last one again and again."""
REFUSALS = 3
"""A dying vLLM answers 400 to whatever it is asked; a refusal counts from the third on."""
GONE = {404, 409}
"""The model is unknown, or may not be served."""


@dataclass(frozen=True)
class Ask:
    """One question to one model."""

    line: int
    """Names the question."""
    messages: list[Turn]


@dataclass(frozen=True)
class Answer:
    """What came of a question."""

    line: int
    text: str = ""
    failed: str | None = None
    """Why it could not be asked: an error code."""
    cut: bool = False
    """It reached the greatest length."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float | None = None
    """From sending on, with the wait for its turn; as it is with ``in_flight`` others."""
    answer_seconds: float | None = None


class ModelGone(Exception):
    """The inference service does not know the model, or may not serve it."""


class _Away(Exception):
    """Worth asking again."""


class _Refused(Exception):
    def __init__(self, code: str, *, gone: bool, final: bool) -> None:
        super().__init__(code)
        self.code = code
        self.gone = gone
        self.final = final


@dataclass(frozen=True)
class Inference:
    """Where the inference processes of one base model are, and for whom they are asked."""

    turn: Callable[[str | None], AbstractContextManager[str]]
    """Given an adapter, or None for the base model: the address to be asked now; may raise
    NobodyServes."""
    secret: str
    tenant_id: str
    salt_key: str
    in_flight: int
    """Questions asked at a time."""

    def client(self) -> httpx.AsyncClient:
        """Open connections; a proxy of the environment would be sent the secret."""
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self.secret}", TENANT_HEADER: self.tenant_id},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=5),
            limits=httpx.Limits(max_connections=self.in_flight),
            trust_env=False,
        )

    def body(self, model: str, messages: list[Turn], max_tokens: int) -> dict[str, Any]:
        """Build a request: greedy, streamed, in the tenant's own prefix cache."""
        return {
            "model": model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "cache_salt": cache_salt(self.salt_key, self.tenant_id),
            "stream": True,
            "stream_options": {"include_usage": True},
        }


async def ask_all(
    inference: Inference,
    model: str,
    asks: Iterable[Ask],
    *,
    max_tokens: int,
    save: Callable[[list[Answer]], None],
    orders: Orders,
) -> None:
    """Ask ``model`` all questions, in their order; ``save`` gets each answer once, soon.

    Raises EndedByOrder (what was answered is saved before), ModelGone, and what ``save`` raises.
    """
    waiting = iter(asks)
    running: set[asyncio.Task[Answer]] = set()
    ended: set[asyncio.Task[Answer]] = set()
    batch = _Batch(save)
    async with inference.client() as client:

        async def ask(question: Ask) -> Answer:
            body = inference.body(model, question.messages, max_tokens)
            once = partial(_once, inference, client, question.line, body)
            return await _persistently(once, question.line)

        try:
            while not orders.given:
                free = inference.in_flight - len(running)
                running |= {asyncio.ensure_future(ask(each)) for each in islice(waiting, free)}
                if not running:
                    break
                ended, running = await asyncio.wait(
                    running, timeout=LISTENING_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                await batch.add([task.result() for task in ended])
        finally:
            for task in running:
                task.cancel()
            # Also of several that failed at once, all must have been looked at.
            await asyncio.gather(*running, *ended, return_exceptions=True)
    await batch.flush()
    orders.check()


class _Batch:
    """Answers on their way to the database."""

    def __init__(self, save: Callable[[list[Answer]], None]) -> None:
        self._save = save
        self._answers: list[Answer] = []
        self._saved = time.monotonic()

    async def add(self, answers: list[Answer]) -> None:
        self._answers += answers
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            await self.flush()

    async def flush(self) -> None:
        answers, self._answers = self._answers, []
        if answers:
            # Elsewhere: answers go on arriving while the database takes its time.
            await asyncio.to_thread(self._save, answers)
        self._saved = time.monotonic()


async def _persistently(once: Callable[[], Awaitable[Answer]], line: int) -> Answer:
    tries = refusals = 0
    while True:
        try:
            return await once()
        except _Refused as refused:
            refusals += 1
            if refused.final or refusals == REFUSALS:
                if refused.gone:
                    raise ModelGone(refused.code) from None
                return Answer(line, failed=refused.code)
        except _Away:
            refusals = 0
        await asyncio.sleep(PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)])
        tries += 1


async def _once(
    inference: Inference, client: httpx.AsyncClient, line: int, body: dict[str, Any]
) -> Answer:
    began = time.monotonic()
    adapter = body["model"] if is_adapter_id(body["model"]) else None
    try:
        with inference.turn(adapter) as url:
            async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise _refusal(response)
                return await _read(response, line, began)
    except (httpx.TransportError, BrokenStream, NobodyServes) as error:
        raise _Away from error


async def _read(response: httpx.Response, line: int, began: float) -> Answer:
    parts: list[str] = []
    first, finish = None, None
    usage: dict[str, int] = {}
    async for event in events(response):
        if "error" in event:
            raise _Away
        for choice in event.get("choices", ()):
            if text := choice.get("delta", {}).get("content"):
                first = first or time.monotonic()
                parts.append(text)
            finish = choice.get("finish_reason") or finish
        usage = event.get("usage") or usage
    ended = time.monotonic()
    return Answer(
        line,
        "".join(parts),
        cut=finish == "length",
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        completion_tokens=int(usage.get("completion_tokens", 0)),
        # An empty answer is nothing but its end.
        first_token_seconds=(first or ended) - began,
        answer_seconds=ended - began,
    )


def _refusal(response: httpx.Response) -> Exception:
    """Say what an answer other than 200 means."""
    status = response.status_code
    if status not in {400, 413, 422, *GONE}:
        return _Away()
    try:
        error = response.json()["error"]
        param, code = error.get("param"), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        param = code = None
    if status == httpx.codes.BAD_REQUEST and param in TOO_LONG_PARAMS:
        return _Refused("context_length_exceeded", gone=False, final=True)
    known = code if isinstance(code, str) else "refused"
    return _Refused(known, gone=status in GONE, final=status == 413)
