"""The embedded PostgreSQL: wherever its home lies, also for root."""

import os
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from deploy.local import folders, postgres
from tests.conftest import accepts, running, wait_until

pytestmark = pytest.mark.slow
PASSWORD = "p@ss/wörd"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@contextmanager
def served(home: Path, password: str = PASSWORD):
    server = postgres.prepare(home, password)
    account = server.account
    with running(
        server.command(fsync="off"),
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        cwd=server.data,
        env=postgres.ENVIRONMENT,
    ):
        url = server.url(postgres.SUPERUSER, password, "postgres")
        wait_until(lambda: accepts(url), "PostgreSQL")
        yield server, url


def ask(url: str, question: str):
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        return next(connection.execute(question))[0]


@pytest.fixture
def open_folder(short_folder):
    """A folder that everybody may pass through."""
    short_folder.chmod(0o711)
    return short_folder


def test_it_keeps_its_data_listens_on_no_port_and_asks_for_the_password(open_folder, monkeypatch):
    monkeypatch.setenv("PGPORT", "5433")  # libpq's users set it; it is not meant for us
    home = open_folder / "postgres"
    with served(home) as (server, url):
        assert ask(url, "SHOW listen_addresses") == ""
        assert ask(url, "SHOW server_encoding") == "UTF8"
        assert ask(url, "SELECT lower('ÄÉ会社')") == "äé会社"
        assert stat.S_IMODE(server.sockets.stat().st_mode) == 0o700
        assert not accepts(server.url(postgres.SUPERUSER, "wrong", "postgres"))
        identifier = ask(url, "SELECT system_identifier FROM pg_control_system()")
    with served(home) as (_, url):
        assert ask(url, "SELECT system_identifier FROM pg_control_system()") == identifier
    postgres.remove(home)


def test_an_interrupted_initdb_is_done_again(open_folder):
    home = open_folder / "postgres"
    postgres.prepare(home, PASSWORD)
    (home / "data").rename(home / "data.tmp")
    (home / "data.tmp" / "PG_VERSION").unlink()
    with served(home) as (_, url):
        assert ask(url, "SELECT 1") == 1


def test_a_killed_servers_pid_that_now_is_another_programs_does_not_stop_it(open_folder):
    home = open_folder / "postgres"
    server = postgres.prepare(home, PASSWORD)
    pid_file = server.data / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{server.data}\n")
    postgres.prepare(home, PASSWORD)
    assert not pid_file.exists()


@as_root
def test_as_root_a_home_that_its_account_cannot_reach_moves_and_nobodys_permissions_change(
    short_folder, monkeypatch
):
    monkeypatch.setattr(postgres, "OUTSIDE", short_folder / "var")
    short_folder.chmod(0o711)
    closed = short_folder / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "postgres"
    with served(home) as (server, url):
        assert home.is_symlink()
        assert home.resolve().parent == short_folder / "var"
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert server.data.stat().st_uid == server.account.pw_uid
        assert ask(url, "SELECT 1") == 1
    place = home.resolve()
    postgres.remove(home)
    assert not place.exists()
    assert not home.is_symlink()


@as_root
def test_as_root_binaries_that_its_account_cannot_run_are_copied(short_folder, monkeypatch):
    monkeypatch.setattr(postgres, "OUTSIDE", short_folder / "var")
    short_folder.chmod(0o711)
    real = folders.runs_as
    monkeypatch.setattr(
        postgres,
        "runs_as",
        lambda command, who: "site-packages" not in command[0] and real(command, who),
    )
    with served(short_folder / "postgres") as (server, url):
        assert server.binaries.is_relative_to(short_folder / "postgres")
        assert ask(url, "SELECT 1") == 1
    version = subprocess.run(
        [server.binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    assert "18" in version.stdout
