"""Real parts for the tests: servers, a database per test, a healthy stack and one for faults.

Order: the healthy stack beside the tests of parts, then fault tests on a stack of their own.
``make test`` runs two of these side by side: most of them wait for processes, not for a processor.
``-m fast`` takes what starts none of them: those tests get the marker here, by their fixtures.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
import redis
from sqlalchemy.engine import make_url
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from deploy.local import postgres as local_postgres
from deploy.local import valkey as local_valkey
from tests.running_stack import RunningStack
from tests.timings import divided_timings

REPOSITORY = Path(__file__).parents[1]
FAULT_TIMINGS_DIVIDED_BY = 10
HEALTHY = pytest.StashKey[RunningStack]()
STARTING = frozenset(
    {"stack", "fault_stack", "fresh_stack", "light_stack", "postgres", "broker", "session_broker"}
)
"""Fixtures behind which a process runs; a test that needs none of them is fast."""
SLOW_TO_IMPORT = re.compile(
    r"^(from|import) (torch|vllm|services\.worker\.training)[\w.]*( import .*)?$", re.MULTILINE
)
"""Ten seconds each: fast tests are not looked for in files and folders that begin with these."""


def pytest_configure() -> None:
    """Let SIGTERM end the session as Ctrl-C does: the fixtures stop what they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests; run the long versions only when asked."""
    if "proof" not in config.option.markexpr:
        long_versions = [item for item in items if item.get_closest_marker("proof")]
        items[:] = [item for item in items if item not in long_versions]
        config.hook.pytest_deselected(items=long_versions)
    for item in items:
        if STARTING.isdisjoint(getattr(item, "fixturenames", ())) and not _is_slow(item):
            item.add_marker("fast")
    items.sort(key=_rank)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Look for fast tests only where looking is fast."""
    if config.option.markexpr != "fast":
        return None
    is_folder = collection_path.is_dir()
    source = collection_path / "conftest.py" if is_folder else collection_path
    readable = source.suffix == ".py" and source.is_file()
    return True if readable and SLOW_TO_IMPORT.search(source.read_text()) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Say which tests must stay together when two run side by side."""
    return _Scopes(config, log)


class _Scopes(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        """Return what runs in one process: a stack's tests, or a file with its own fixtures.

        The worker's tests share nothing; each goes wherever there is room.
        """
        path = nodeid.partition("::")[0]
        folder = path.rpartition("/")[0]
        if folder.startswith("tests/e2e/"):
            return folder
        return nodeid if folder == "tests/services/worker" else path


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the healthy stack as soon as nobody needs it: its memory and cores are for others."""
    if nextitem is None or _rank(nextitem) != _ON_HEALTHY_STACK:
        _stop_healthy(item.config)


_ON_HEALTHY_STACK, _OF_PARTS, _OF_FAULTS, _ON_FAULT_STACK = range(4)


def _is_slow(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("slow", "fault", "gpu"))


def _rank(item: pytest.Item) -> int:
    fixtures = getattr(item, "fixturenames", ())
    if "fault_stack" in fixtures:
        return _ON_FAULT_STACK
    if "stack" in fixtures:
        return _ON_HEALTHY_STACK
    return _OF_FAULTS if item.get_closest_marker("fault") else _OF_PARTS


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[RunningStack]:
    """The healthy stack: nothing of it is ever killed (about a minute to start)."""
    healthy = RunningStack()
    request.config.stash[HEALTHY] = healthy
    try:
        healthy.up()
        yield healthy
    finally:
        _stop_healthy(request.config)


@pytest.fixture(scope="session")
def fault_stack(request: pytest.FixtureRequest) -> Iterator[RunningStack]:
    """The stack that fault tests kill parts of; all its clocks run ten times as fast.

    The healthy one is stopped first: two vLLMs and a trainer are too much for two cores.
    """
    _stop_healthy(request.config)
    stack = RunningStack(divided_timings(FAULT_TIMINGS_DIVIDED_BY))
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()


def _stop_healthy(config: pytest.Config) -> None:
    healthy = config.stash.get(HEALTHY, None)
    if healthy is not None:
        del config.stash[HEALTHY]
        healthy.remove()


@dataclass(frozen=True)
class Database:
    """SQLAlchemy URLs of one migrated database, by role."""

    api_url: str
    system_url: str
    owner_url: str
    inference_url: str


class PostgresServer:
    """A running PostgreSQL that hands out fresh copies of the migrated database."""

    def __init__(self, server: local_postgres.Postgres, password: str) -> None:
        self._server = server
        self._passwords = {role: token_hex(8) for role in ("owner", "api", "system", "inference")}
        self.superuser_url = server.url(local_postgres.SUPERUSER, password, "postgres")
        self._migrate()

    @contextmanager
    def fresh_database(self) -> Iterator[Database]:
        """Create a copy of the migrated, empty database; drop it afterwards."""
        name = f"test_{token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE tailor OWNER tailor_owner")
        try:
            yield self.urls(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def urls(self, database: str) -> Database:
        """Return the URLs of ``database``."""
        return Database(
            **{
                f"{role}_url": self._server.url(f"tailor_{role}", password, database)
                for role, password in self._passwords.items()
            }
        )

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        plain = make_url(self.superuser_url).set(drivername="postgresql")
        with psycopg.connect(
            plain.render_as_string(hide_password=False), autocommit=True
        ) as connection:
            connection.execute(statement)

    def _migrate(self) -> None:
        urls = self.urls("tailor")
        subprocess.run(
            [sys.executable, "-m", "shared.db.migrate"],
            cwd=REPOSITORY,
            env=os.environ
            | {
                "TAILOR_BOOTSTRAP_DATABASE_URL": self.superuser_url,
                "TAILOR_OWNER_DATABASE_URL": urls.owner_url,
                "TAILOR_DATABASE_URL": urls.api_url,
                "TAILOR_SYSTEM_DATABASE_URL": urls.system_url,
                "TAILOR_INFERENCE_DATABASE_URL": urls.inference_url,
                "TAILOR_LOG_LEVEL": "WARNING",
            },
            check=True,
        )


@dataclass
class Broker:
    """A running Valkey."""

    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole session (about 3 s with the migration)."""
    with running_postgres() as server:
        yield server


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a PostgreSQL in a folder of its own, which is gone afterwards."""
    with short_folder() as folder:
        # PostgreSQL's unprivileged account passes through; it owns its home.
        folder.chmod(0o711)
        password = token_hex(8)
        server = local_postgres.prepare(folder / "postgres", password)
        command = server.command(fsync="off", full_page_writes="off", max_connections="200")
        account = server.account
        with running(
            command,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd=server.data,
            env=local_postgres.ENVIRONMENT,
        ):
            wait_until((server.sockets / ".s.PGSQL.5432").exists, "PostgreSQL's socket")
            probe = server.url(local_postgres.SUPERUSER, password, "postgres")
            wait_until(lambda: accepts(probe), "PostgreSQL accepts connections")
            yield PostgresServer(server, password)
        local_postgres.remove(folder / "postgres")


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """A migrated, empty database of this test's own."""
    with postgres.fresh_database() as urls:
        yield urls


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A running Valkey of this test's own (about 50 ms)."""
    with _valkey() as broker:
        yield broker


@pytest.fixture(scope="session")
def session_broker() -> Iterator[Broker]:
    """A Valkey for tests that only count in it."""
    with _valkey() as broker:
        yield broker


@contextmanager
def _valkey() -> Iterator[Broker]:
    with short_folder() as folder, running(local_valkey.command(folder)) as process:
        wait_until((folder / "valkey.sock").exists, "Valkey's socket")
        with redis.Redis(unix_socket_path=str(folder / "valkey.sock")) as client:
            wait_until(client.ping, "Valkey answers", (redis.ConnectionError,))
        yield Broker(local_valkey.url(folder), process)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets (pytest's own are not)."""
    with tempfile.TemporaryDirectory(prefix="tailor-test-") as name:
        yield Path(name)


@contextmanager
def running(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` and end it, at latest after 10 s by force."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(
    condition: Callable[[], object],
    what: str,
    retried: tuple[type[Exception], ...] = (),
    seconds: float = 30,
) -> None:
    """Return as soon as ``condition`` holds; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except retried:
            pass
        time.sleep(0.02)
    pytest.fail(f"{what}: not within {seconds} s")


def accepts(url: str) -> bool:
    """Say whether the database at ``url`` takes a connection."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        psycopg.connect(plain).close()
    except psycopg.OperationalError:
        return False
    return True
