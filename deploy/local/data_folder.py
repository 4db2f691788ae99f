"""Everything a stack keeps lies in one data folder; this module knows where, and the secrets.

::

    endpoint.json   address of the running stack (absent when stopped)
    prometheus-targets.json   what Prometheus finds the metrics by (absent when stopped)
    secrets/        one file per secret, mode 0600, made by the first start
    store/          uploads, attempts, adapters
    postgres        PostgreSQL's home, or a link to it
    sockets         of valkey and supervisord, or a link to a short folder
    inference/      vLLM's process-group record (inference-2/ the second inference process's)
    logs/           NAME.log, rotated
    run/            lock, supervisord's configuration, records of the running programs
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.folders import private_folder, unprivileged_account
from shared.tenants.keys import new_secret


class DataFolder:
    """Paths of one stack."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.endpoint = self.root / "endpoint.json"
        self.prometheus_targets = self.root / "prometheus-targets.json"
        self.secrets = self.root / "secrets"
        self.store = self.root / "store"
        self.postgres = self.root / "postgres"
        self.sockets = self.root / "sockets"
        self.logs = self.root / "logs"
        self.run = self.root / "run"

    def log(self, service: str) -> Path:
        """File with what ``service`` wrote."""
        return self.logs / f"{service}.log"

    def state(self, inference: str) -> Path:
        """Private folder of one inference process."""
        return self.root / inference

    def states(self) -> list[Path]:
        """Those of all that have ever run here."""
        return sorted(self.root.glob("inference*/"))

    def record(self, service: str) -> Path:
        """File that says which process group ``service`` is."""
        return self.run / f"{service}.record.json"

    def spec(self, service: str) -> Path:
        """File that says how ``service`` is run."""
        return self.run / f"{service}.spec.json"

    def make(self) -> None:
        """Create the folders; PostgreSQL's account, where it has its own, may pass through."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700 if unprivileged_account() is None else 0o711)
        for folder in (self.secrets, self.store, self.logs, self.run):
            private_folder(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second ``tailor up`` on this folder out while one is starting."""
        with (self.run / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"Another `tailor up` is starting in {self.root}.") from None
            yield


@dataclass(frozen=True)
class Secrets:
    """The stack's own secrets; none has a default and none is ever shown by it."""

    admin_key: str = field(repr=False)
    postgres_password: str = field(repr=False)
    owner_password: str = field(repr=False)
    api_password: str = field(repr=False)
    system_password: str = field(repr=False)
    inference_password: str = field(repr=False)
    inference_secret: str = field(repr=False)
    cache_salt_key: str = field(repr=False)
    metrics_secret: str = field(repr=False)


def load_secrets(folder: Path) -> Secrets:
    """Return the secrets in ``folder``; those that are missing are made."""
    return Secrets(
        **{
            name: _load_or_make(folder / name, admin=name == "admin_key")
            for name in Secrets.__dataclass_fields__
        }
    )


def _load_or_make(path: Path, *, admin: bool) -> str:
    if path.exists():
        return path.read_text().strip()
    secret = new_secret(admin=True) if admin else secrets.token_urlsafe(32)
    unfinished = path.with_suffix(".tmp")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
        file.flush()
        os.fsync(descriptor)
    unfinished.rename(path)
    return secret
