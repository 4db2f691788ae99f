"""A whole stack for tests, started and stopped as a user does it: ``tailor up`` and ``down``."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import openai
import psutil

from cli.client import AdminClient, client_of
from cli.connection import Connection
from deploy.local import postgres as local_postgres
from deploy.local.programs import NAMES, Wiring
from deploy.local.records import leader_lives
from deploy.local.stack import Stack
from shared.processes import read_record

REPOSITORY = Path(__file__).parents[1]
ALL = [*NAMES, "supervisord"]


@dataclass(frozen=True)
class Customer:
    """A tenant, its key and the official client with that key."""

    id: str
    name: str
    api_key: str
    client: openai.OpenAI


class RunningStack:
    """A stack in a folder of its own, on a free port."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self.settings = settings or {}
        """``TAILOR_*`` variables for every service."""
        self._scratch = Path(tempfile.mkdtemp(prefix="tailor-test-stack-"))
        self.move_to(self._scratch)
        self._clients: list[openai.OpenAI] = []

    def move_to(self, data_dir: Path) -> None:
        """Use another data folder, below the one it was made with."""
        self.data_dir = data_dir
        self._stack = Stack(data_dir)

    def up(self) -> None:
        """Start it, or start it again after ``down`` or a crash."""
        self.command("up", "--detach", "--port", "0")

    def down(self) -> None:
        """Stop it; the data stay."""
        self.command("down")

    def remove(self) -> None:
        """Stop it and delete everything."""
        for client in self._clients:
            client.close()
        self.down()
        local_postgres.remove(self._stack.folder.postgres)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def command(self, *arguments: str) -> str:
        """Run a ``tailor`` command on this stack and return what it prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a ``tailor`` command on this stack, whatever comes of it."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments, "--data-dir", str(self.data_dir)],
            cwd=REPOSITORY,
            env={**os.environ, **self.settings, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def tenant(self, name: str) -> Customer:
        """Create a tenant; a suffix keeps names of different tests apart."""
        name = f"{name}-{token_hex(3)}"
        with AdminClient(Connection(self.base_url, self.admin_key)) as admin:
            made = admin.create_tenant(name)
        return Customer(made["id"], name, made["api_key"], self.client(made["api_key"]))

    def client(self, api_key: str) -> openai.OpenAI:
        """Return the official client for this start's address."""
        client = client_of(Connection(self.base_url, api_key))
        self._clients.append(client)
        return client

    def pid_of(self, service: str) -> int | None:
        """Return the main process of ``service``; None while it is down."""
        record = read_record(self._stack.folder.record(service))
        return record.pgid if record is not None and leader_lives(record) else None

    def kill_everything(self) -> None:
        """SIGKILL every process of the stack, supervisor first, as a power cut would."""
        leaders = [psutil.Process(pid) for name in ALL if (pid := self.pid_of(name)) is not None]
        below = [child for leader in leaders for child in leader.children(recursive=True)]
        for process in [*reversed(leaders), *below]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def is_ready(self) -> bool:
        """Say whether every service is ready."""
        return bool(self._stack.status()["state"] == "ready")

    def log(self, service: str) -> Path:
        """File with what ``service`` wrote."""
        return self._stack.folder.log(service)

    @property
    def wiring(self) -> Wiring:
        """Addresses and credentials of this start."""
        return self._stack.wiring()

    @property
    def base_url(self) -> str:
        """The API with ``/v1``."""
        return self.wiring.base_url

    @property
    def inference_url(self) -> str:
        """vLLM behind its guard; the first, where there are several."""
        return self.wiring.replicas[0].url

    @property
    def system_database_url(self) -> str:
        """The database as ``tailor_system``."""
        return self.wiring.system_database_url

    @property
    def broker_url(self) -> str:
        """Valkey for Celery."""
        return self.wiring.broker_url

    @property
    def admin_key(self) -> str:
        """The administrator's key."""
        return self._secret("admin_key")

    @property
    def inference_secret(self) -> str:
        """What the inference service asks for."""
        return self._secret("inference_secret")

    @property
    def metrics_secret(self) -> str:
        """What scheduler, worker and inference show their metrics for."""
        return self._secret("metrics_secret")

    @property
    def store_dir(self) -> Path:
        """The artifact store."""
        return self._stack.folder.store

    def _secret(self, name: str) -> str:
        return (self._stack.folder.secrets / name).read_text()
