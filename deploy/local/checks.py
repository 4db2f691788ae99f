"""Refuses early, with a sentence, what would fail late: a busy port, a full disk, a base model."""

import errno
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.errors import StackError
from shared.catalog import load_catalog

LEAST_FREE_BYTES = 500 * 1024 * 1024


def check_disk(root: Path) -> None:
    """Raise StackError where less than 500 MB are free."""
    if shutil.disk_usage(root).free < LEAST_FREE_BYTES:
        raise StackError(f"Less than 500 MB are free in {root}: free some space first.")


def check_base_model(name: str, models_dir: Path) -> None:
    """Raise StackError unless the base model is there and, where it was added, proven."""
    entry = load_catalog(models_dir).get(name)
    folder = entry.folder(models_dir)
    if missing := [name for name in entry.weights if not (folder / name).is_file()]:
        raise StackError(
            f"The base model {entry.name} lacks {missing[0]} in {folder}: run `make setup`, or add "
            "it again."
        )
    if not entry.offered(models_dir):
        raise StackError(
            f"The base model {entry.name} is not proven as it is now: run "
            f"`tailor model check {entry.name}`."
        )


def claim_port(host: str, port: int) -> int:
    """Return ``port`` if it can be bound, or for 0 one that can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StackError(
                    f"Port {port} on {host} is busy: choose another with --port,"
                    " or --port 0 for any free one."
                ) from None
            raise StackError(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
        bound: int = probe.getsockname()[1]
        return bound


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in {
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EEXIST,
        }:
            raise
        raise StackError(f"Cannot write below {root}: {error.strerror}.") from error
