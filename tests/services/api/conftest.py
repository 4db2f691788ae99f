"""An API on a free port over a real database, and a scripted HTTP server in vLLM's place."""

import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from openai import OpenAI
from pydantic import SecretStr
from sqlalchemy import Engine

from services.api.app import create_app
from services.api.server import listening, server_config
from services.api.settings import ApiSettings
from shared.adapters.models import Adapter
from shared.catalog import DESCRIPTION, load_catalog
from shared.db import make_engine, transaction
from shared.ids import new_id
from shared.jobs.state import State
from shared.jobs.transitions import move
from shared.storage import LocalStore
from shared.tenants.admin import install_admin_key
from shared.tenants.keys import new_secret
from tests.conftest import Broker, Database, PostgresServer, short_folder, wait_until
from tests.replicas import registered

BASE = "smollm2-135m-instruct"
UNSERVED = "added-here"
"""Installed too, but not what inference answers for."""
PLAIN_HTTP = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ADMIN_KEY = new_secret(admin=True)
"""One for all: installing another would revoke it for the APIs on the same database."""
MISSING_BROKER = "redis+socket:///nonexistent/valkey.sock"


@dataclass
class Tenant:
    """A tenant with a key and both kinds of client."""

    id: str
    key: str
    http: httpx.Client
    openai: OpenAI

    def upload(self, body: bytes, filename: str = "data.jsonl", purpose: str = "fine-tune") -> str:
        """Upload a file and return its id."""
        answer = self.http.post(
            "/v1/files", files={"file": (filename, body)}, data={"purpose": purpose}
        )
        answer.raise_for_status()
        return str(answer.json()["id"])

    def create_job(self, **asked: Any) -> dict[str, Any]:
        """Upload a good file, create a job on it, and return the job."""
        asked = {"model": BASE, "training_file": asked.pop("training_file", None), **asked}
        asked["training_file"] = asked["training_file"] or self.upload(training_rows(12))
        answer = self.http.post("/v1/fine_tuning/jobs", json=asked)
        answer.raise_for_status()
        return dict(answer.json())


@dataclass
class Api:
    """A running API."""

    url: str
    settings: ApiSettings
    store: LocalStore
    system: Engine
    admin_key: str
    _clients: list[httpx.Client] = field(default_factory=list)

    def client(self, key: str | None = None) -> httpx.Client:
        """Return an HTTP client with a key."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # A client loads the certificates each time unless it is given none to load: 0.1 s.
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=PLAIN_HTTP)
        self._clients.append(client)
        return client

    def admin(self) -> httpx.Client:
        """Return an HTTP client with the administrator's key."""
        return self.client(self.admin_key)

    def new_tenant(self) -> Tenant:
        """Create a tenant of a test's own."""
        made = self.admin().post("/admin/tenants", json={"name": new_id("会社 ")}).json()
        http = self.client(made["api_key"])
        options: dict[str, Any] = {"http_client": http, "max_retries": 0}
        openai = OpenAI(base_url=f"{self.url}/v1", api_key=made["api_key"], **options)
        return Tenant(made["id"], made["api_key"], http, openai)

    def add_adapter(
        self,
        tenant: Tenant,
        job_id: str | None = None,
        step: int | None = None,
        base_model: str = BASE,
    ) -> str:
        """Insert a published adapter as the worker would; return its public name."""
        name = f"ft:{BASE}:{tenant.id}::{new_id('')[-8:]}"
        with transaction(self.system) as session:
            row = Adapter(
                id=new_id("ad_"),
                tenant_id=tenant.id,
                job_id=job_id,
                kind="final" if step is None else "checkpoint",
                model=name if step is None else f"{name}:ckpt-step-{step}",
                step=step or 10,
                base_model=base_model,
                base_sha256="0" * 64,
                metrics={"step": step or 10, "train_loss": 0.5},
            )
            session.add(row)
        return row.model

    def validated(self, job_id: str) -> str:
        """Queue a new job as the scheduler would; return its id."""
        with transaction(self.system) as session:
            move(session, job_id, State.QUEUED, "Files validated, moving job to queued state")
        return job_id

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            client.close()


@contextmanager
def running_api(
    database: Database,
    inference_url: str,
    broker_url: str = MISSING_BROKER,
    *,
    base_model: str = BASE,
    base_sha256: str | None = None,
    profile_sha256: str | None = None,
    **changes: Any,
) -> Iterator[Api]:
    """Serve the API from a thread on a free port; one process, at ``inference_url``, serves.

    It says that it serves what is described, or weights and a profile with these hashes.
    """
    with short_folder() as folder:
        for name in (BASE, UNSERVED):
            (folder / "models" / name).mkdir(parents=True)
            (folder / "models" / name / "config.json").write_text("{}")
        added = load_catalog().get(BASE).model_copy(update={"name": UNSERVED})
        (folder / "models" / UNSERVED / DESCRIPTION).write_text(added.model_dump_json())
        settings = ApiSettings(
            database_url=SecretStr(database.api_url),
            system_database_url=SecretStr(database.system_url),
            broker_url=SecretStr(broker_url),
            store_dir=folder / "data",
            models_dir=folder / "models",
            inference_secret=SecretStr("internal-secret"),
            cache_salt_key=SecretStr("salt-key"),
            **changes,
        )
        system = make_engine(database.system_url)
        install_admin_key(system, ADMIN_KEY)
        entry = load_catalog(settings.models_dir).get(base_model)
        with (
            registered(
                system,
                inference_url,
                entry,
                base_sha256=base_sha256 or entry.base_sha256,
                profile_sha256=profile_sha256 or entry.profile.sha256(),
            ),
            served(create_app(settings), settings) as url,
        ):
            api = Api(url, settings, LocalStore(settings.store_dir), system, ADMIN_KEY)
            yield api
            api.close()
        system.dispose()


@contextmanager
def served(app: Any, settings: ApiSettings) -> Iterator[str]:
    """Run the API's application in a thread, served as it is; yield its address."""
    server = uvicorn.Server(server_config(app, settings, port=0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": listening(settings)})
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the API listens")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@dataclass
class Exchange:
    """One request that reached the scripted server, and the way to answer it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    connection: socket.socket

    def send_json(self, status: int, answer: object) -> None:
        """Answer with JSON."""
        data = json.dumps(answer, ensure_ascii=False).encode()
        self.connection.sendall(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(data)}\r\n\r\n".encode()
            + data
        )

    def start_stream(self) -> None:
        """Begin a chunked event stream."""
        self.connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    def send_event(self, event: object) -> None:
        """Send one event; a string goes out as it is."""
        text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        data = f"data: {text}\n\n".encode()
        self.connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end_stream(self) -> None:
        """End the stream properly."""
        self.connection.sendall(b"0\r\n\r\n")

    def was_left(self, seconds: float = 10) -> bool:
        """Wait until the gateway closes the connection."""
        self.connection.settimeout(seconds)
        try:
            return self.connection.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


Script = Callable[[Exchange], None]


class Upstream:
    """Answers every request by the script of the moment, and remembers the requests."""

    def __init__(self) -> None:
        self.script: Script = lambda exchange: exchange.send_json(500, {})
        self.seen: list[Exchange] = []
        self.url = ""


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[Upstream]:
    """The scripted server, for the whole session."""
    with scripted_server() as upstream:
        yield upstream


@contextmanager
def scripted_server() -> Iterator[Upstream]:
    """Serve, in vLLM's place, what a script says."""
    upstream = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = json.loads(self.rfile.read(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            exchange = Exchange(self.path, headers, body, self.connection)
            upstream.seen.append(exchange)
            upstream.script(exchange)
            self.close_connection = True

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    upstream.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield upstream
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def upstream(upstream_server: Upstream) -> Upstream:
    """The scripted server with nothing remembered."""
    upstream_server.seen.clear()
    return upstream_server


@pytest.fixture(scope="session")
def api_database(postgres: PostgresServer) -> Iterator[Database]:
    """One database for all API tests; each test makes tenants of its own."""
    with postgres.fresh_database() as database:
        yield database


@pytest.fixture(scope="session")
def api(api_database: Database, upstream_server: Upstream) -> Iterator[Api]:
    """The API, with small limits, an inference service that is scripted and no broker."""
    limits: dict[str, Any] = {
        "upload_max_bytes": 2 * 2**20,
        "json_max_bytes": 2**18,
        "key_cache_seconds": 0.2,
    }
    with running_api(api_database, upstream_server.url, **limits) as running:
        yield running


@pytest.fixture
def tenant(api: Api) -> Tenant:
    """A tenant of this test's own."""
    return api.new_tenant()


@pytest.fixture(scope="session")
def metered(
    postgres: PostgresServer, upstream_server: Upstream, session_broker: Broker
) -> Iterator[Api]:
    """An API with a broker that counts requests and tokens."""
    quick: dict[str, Any] = {"key_cache_seconds": 0.05}
    url, broker = upstream_server.url, session_broker.url
    with (
        postgres.fresh_database() as database,
        running_api(database, url, broker, **quick) as running,
    ):
        yield running


@pytest.fixture
def stranger(api: Api) -> Tenant:
    """Another tenant."""
    return api.new_tenant()


def training_rows(count: int) -> bytes:
    """Build a training file of so many Japanese chat rows."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"製品{i}の保証期間は?"},
                {"role": "assistant", "content": f"{i}年です。"},
            ]
        }
        for i in range(count)
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def stored_files(folder: Path) -> set[Path]:
    """Return everything below a folder (rglob would trip over what vanishes meanwhile)."""
    return {
        Path(top, name) for top, folders, files in os.walk(folder) for name in (*folders, *files)
    }
