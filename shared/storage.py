"""The artifact store on a local directory: uploads, attempts, adapters.

A folder is committed by its MANIFEST.json, written last: sizes and SHA-256 of every file. Writers
fill ``.tmp-…`` beside the target, fsync, then rename; so a reader sees all of a folder or nothing.
Folder names are our ids only, never a user's string.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from shared.errors import TailorError

MANIFEST = "MANIFEST.json"
TEMPORARY = ".tmp-"
"""How a folder's name begins while it is filled; one that is old was left by a killed process."""


class CorruptArtifact(TailorError):
    """A folder's manifest is missing or does not match its files."""


class LocalStore:
    """Paths under one root directory, by id.

    ``uploads/<file>/`` raw and rows.jsonl; ``attempts/<job>/<attempt>/`` checkpoints and the
    adapter in the making; ``adapters/<adapter>/`` published, immutable; ``incoming/`` uploads in
    progress.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def upload(self, file_id: str) -> Path:
        """Folder of an uploaded file."""
        return self._path("uploads", file_id)

    def incoming(self) -> Path:
        """Folder for bodies still being received, on the same file system as uploads."""
        return self._path("incoming")

    def job_attempts(self, job_id: str) -> Path:
        """Folder that holds one numbered folder per attempt of a job."""
        return self._path("attempts", job_id)

    def attempt(self, job_id: str, attempt: int) -> Path:
        """Folder that only this attempt writes to."""
        return self.job_attempts(job_id) / str(attempt)

    def adapter(self, adapter_id: str) -> Path:
        """Folder of a published adapter."""
        return self._path("adapters", adapter_id)

    def adapters(self) -> Path:
        """Folder that holds all published adapters."""
        return self._path("adapters")

    def _path(
        self, area: Literal["uploads", "incoming", "attempts", "adapters"], *ids: str
    ) -> Path:
        for part in ids:
            if "/" in part or part.startswith(".") or not part:
                raise ValueError("an artifact's folder is named by one of our ids")
        return self.root.joinpath(area, *ids)


@contextmanager
def publish_folder(target: Path, meta: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to fill; on leaving, commit it as ``target`` with its manifest.

    ``meta`` is kept in the manifest under ``"meta"``. An exception inside leaves nothing behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f"{TEMPORARY}{target.name}-{uuid4().hex}"
    temporary.mkdir()
    try:
        yield temporary
        write_manifest(temporary, meta)
        temporary.rename(target)
        fsync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path, meta: dict[str, Any]) -> None:
    """Fsync every file of ``folder``, then write its manifest, last."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        _fsync(path)
        files[path.relative_to(folder).as_posix()] = {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files, "meta": meta}, indent=1, ensure_ascii=False))
    _fsync(manifest)
    fsync_folder(folder)


def verify_manifest(folder: Path) -> dict[str, Any]:
    """Check every file of ``folder`` against its manifest and return the manifest's ``meta``.

    Raises CorruptArtifact when the manifest is missing, a size or hash differs, or a file is extra.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files: dict[str, dict[str, Any]] = manifest["files"]
        meta: dict[str, Any] = manifest["meta"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"no readable manifest in {folder.name}") from error
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    if present != {*files, MANIFEST}:
        raise CorruptArtifact(f"files of {folder.name} differ from its manifest")
    for name, expected in files.items():
        path = folder / name
        if path.stat().st_size != expected["bytes"] or sha256_of(path) != expected["sha256"]:
            raise CorruptArtifact(f"{name} of {folder.name} differs from its manifest")
    return meta


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
