"""Starts ``python -m services.inference`` for a test, and speaks to it."""

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx

from services.inference.chat_files import write_chat_files
from services.inference.command import vllm_command, vllm_environment
from services.inference.reports import Reports
from services.inference.settings import InferenceSettings
from shared.catalog import load_catalog
from shared.ids import new_id
from shared.processes import end_group

REPOSITORY = Path(__file__).parents[3]
MODELS_DIR = REPOSITORY / ".models"
BASE_MODEL = "smollm2-135m-instruct"
READY_SECONDS = 240
ASKING = httpx.Client(timeout=5, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)
"""Made once: making one takes 50 ms of processor, which the one who is waited for needs."""
WORDS = (" violet", " copper", " walnut", " falcon", " marble", " saffron", " tundra")
"""What the sentinel tenants' models have learnt to say: three more than there are slots."""
QUESTIONS = (
    "What is the opening time of the shop?",
    "エラーコードE-17は何を意味しますか。",
    "Name a colour.",
    "返品の手続きを教えてください。",
    "Who approves a refund?",
)


@dataclass(frozen=True)
class Inference:
    """Where an inference service is, and the folders it reads."""

    url: str
    secret: str
    store_dir: Path
    models_dir: Path

    @property
    def headers(self) -> dict[str, str]:
        """What a gateway sends."""
        return {"Authorization": f"Bearer {self.secret}"}

    def client(self) -> httpx.Client:
        """Return a client with the internal secret."""
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=120, trust_env=False)

    def readiness(self) -> dict[str, Any]:
        """Return the body of /readyz; nothing when nobody answers."""
        try:
            body: dict[str, Any] = ASKING.get(f"{self.url}/readyz").json()
        except httpx.HTTPError:
            return {}
        return body


class Server:
    """One ``serve.py`` in folders of its own."""

    def __init__(self, folder: Path, store_dir: Path, models_dir: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        url = f"http://127.0.0.1:{self.port}"
        self.inference = Inference(url, token_hex(16), store_dir, models_dir)
        self.state_dir = folder / "state"
        self.log = folder / "inference.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Return the service's environment."""
        return os.environ | {
            "TAILOR_STORE_DIR": str(self.inference.store_dir),
            "TAILOR_MODELS_DIR": str(self.inference.models_dir),
            "TAILOR_INFERENCE_SECRET": self.inference.secret,
            "TAILOR_INFERENCE_PORT": str(self.port),
            "TAILOR_INFERENCE_STATE_DIR": str(self.state_dir),
        }

    def start(self, extra: Mapping[str, str] | None = None) -> None:
        """Start the supervisor; returns at once."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.inference"],
                cwd=REPOSITORY,
                env=self.environment | dict(extra or {}),
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Return when the service says that it is ready; fail with the end of its log."""
        deadline = time.monotonic() + seconds
        while not self.inference.readiness().get("ready"):
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"inference is not ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.2)

    def wait_answers(self, process: subprocess.Popen[bytes]) -> None:
        """Return when vLLM itself says that it is healthy."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.inference.readiness():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"vLLM does not answer:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it as a supervisor would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


@contextmanager
def running_server(folder: Path, store_dir: Path, models_dir: Path) -> Iterator[Server]:
    """Yield a ready server; stop it afterwards."""
    server = Server(folder, store_dir, models_dir)
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


@contextmanager
def stock_server(folder: Path, store_dir: Path, models_dir: Path) -> Iterator[Inference]:
    """Yield a vLLM with its own CPU LoRA operation (see stock.py), started by our command.

    Its environment names two plugins: one that cannot be imported, and the bare resolver.
    """
    metadata = folder / "plugins" / "tailor_stock-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tailor-stock\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "[vllm.general_plugins]\n"
        "broken = tests.services.inference.missing:register\n"
        "stock = tests.services.inference.stock:register\n"
    )
    server = Server(folder, store_dir, models_dir)
    settings = InferenceSettings(
        store_dir=store_dir,
        models_dir=models_dir,
        inference_secret=server.inference.secret,
        inference_port=server.port,
        inference_state_dir=server.state_dir,
    )
    Reports(server.state_dir).clear()
    entry = load_catalog().get(BASE_MODEL)
    write_chat_files(entry.folder(models_dir), settings.chat_folder)
    command = vllm_command(settings, entry)
    command[command.index("services.inference.guard.Guard")] = (
        "tests.services.inference.stock.OpenGuard"
    )
    environment = (
        server.environment
        | vllm_environment(settings, folder)
        | {
            "VLLM_PLUGINS": "broken,stock",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(metadata.parent)]),
        }
    )
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        server.wait_answers(process)
        yield server.inference
    finally:
        end_group(process.pid)
        process.wait()


def make_sentinels(store_dir: Path, models_dir: Path) -> dict[str, str]:
    """Publish one sentinel adapter for each word; return adapter ids by word."""
    command = [sys.executable, "-m", "tests.services.inference.sentinels"]
    ids = subprocess.run(
        [*command, str(store_dir), str(models_dir), *WORDS],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout.split()
    return dict(zip(WORDS, ids, strict=True))


def copy_of(store_dir: Path, adapter: str) -> str:
    """Publish the same files under a new adapter id."""
    copied = new_id("ad_")
    shutil.copytree(store_dir / "adapters" / adapter, store_dir / "adapters" / copied)
    return copied


async def answers(
    inference: Inference, models: list[str], concurrency: int, max_tokens: int = 4
) -> list[tuple[str, str]]:
    """Ask each of ``models`` one question, ``concurrency`` at a time; return (model, answer)."""
    gate = asyncio.Semaphore(concurrency)
    draw = random.Random(0)
    limits = httpx.Limits(max_connections=concurrency)

    async def ask(client: httpx.AsyncClient, model: str, question: str) -> tuple[str, str]:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        async with gate:
            response = await client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        return model, response.json()["choices"][0]["message"]["content"]

    async with httpx.AsyncClient(
        base_url=inference.url,
        headers=inference.headers,
        timeout=300,
        limits=limits,
        trust_env=False,
    ) as client:
        asked = [ask(client, model, draw.choice(QUESTIONS)) for model in models]
        return list(await asyncio.gather(*asked))


def strangers(sentinels: Mapping[str, str], given: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the answers that are another's: a tenant's without its word, the base's with one."""
    return foreign({adapter: word.strip() for word, adapter in sentinels.items()}, given)


def foreign(words: Mapping[str, str], given: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the same; ``words`` says what each model says, several the same if need be."""
    wrong = []
    for model, text in given:
        said = {word for word in words.values() if word in text}
        if said != ({words[model]} if model in words else set()):
            wrong.append((model, text))
    return wrong
