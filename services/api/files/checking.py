"""Training files and documents are read in child processes: a few at a time, one for each tenant.

The event loop waits for them; no thread does, because key look-ups share the pool of threads.
Whoever stops waiting (the caller left, the time is up) ends the child.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

import shared
from services.api.settings import ApiSettings
from shared.errors import InsufficientStorage, InvalidRequest, RateLimited, UpstreamUnavailable
from shared.files.check_process import DISK_EXIT, MEMORY_EXIT
from shared.files.documents.report import DocumentReport
from shared.files.report import Report
from shared.telemetry import log_event

_ROOT = Path(shared.__file__).parents[1]
Reader = Literal["training_file", "document"]
_ADVICE: dict[Reader, tuple[str, str]] = {
    "training_file": (
        "save it as CSV (UTF-8) or JSONL, or in several files",
        "invalid_training_file",
    ),
    "document": ("save it as text, or in several files", "invalid_document"),
}
"""What its owner can do, and the error's code."""

log = logging.getLogger(__name__)


@dataclass
class FileChecks:
    """The places for children of this process."""

    settings: ApiSettings
    _tenants: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.settings.file_checks)

    async def check(self, tenant_id: str, raw: Path, filename: str, rows_path: Path) -> Report:
        """Return the report of the file at ``raw``; the normalised rows go to ``rows_path``.

        Raises InvalidRequest when it cannot be read within the limits, RateLimited while another
        file of this tenant is checked, UpstreamUnavailable while every place is taken.
        """
        output = await self._read(tenant_id, "training_file", raw, filename, rows_path)
        return Report.model_validate_json(output)

    async def read_document(
        self, tenant_id: str, raw: Path, filename: str, passages_path: Path
    ) -> DocumentReport:
        """Return the report of the document at ``raw``; its passages go to ``passages_path``.

        Raises as ``check`` does.
        """
        output = await self._read(tenant_id, "document", raw, filename, passages_path)
        return DocumentReport.model_validate_json(output)

    async def _read(
        self, tenant_id: str, reader: Reader, raw: Path, filename: str, target: Path
    ) -> bytes:
        request = {
            "reader": reader,
            "path": str(raw),
            "filename": filename,
            "target": str(target),
            "cpu_seconds": self.settings.file_check_cpu_seconds,
            "memory_bytes": self.settings.file_check_memory_bytes,
        }
        async with self._place(tenant_id):
            try:
                async with asyncio.timeout(self.settings.file_check_seconds):
                    returncode, output = await _run(json.dumps(request).encode())
            except TimeoutError:
                raise _refused(reader, "takes too long to read") from None
        _raise_for(reader, returncode)
        return output

    @asynccontextmanager
    async def _place(self, tenant_id: str) -> AsyncIterator[None]:
        own = self._tenants.setdefault(tenant_id, asyncio.Lock())
        deadline = asyncio.get_running_loop().time() + self.settings.file_check_wait_seconds
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout_at(deadline):
                    await held.enter_async_context(own)
            except TimeoutError:
                raise RateLimited(
                    "Another file of yours is still being checked; send this one again later."
                ) from None
            try:
                async with asyncio.timeout_at(deadline):
                    await held.enter_async_context(self._places)
            except TimeoutError:
                raise UpstreamUnavailable(
                    "Many files are being checked at the moment; send this one again later."
                ) from None
            yield


async def _run(request: bytes) -> tuple[int, bytes]:
    """Run one child to its end and return its exit status and output; cancelled, it is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "shared.files.check_process",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # a traceback may hold a row's text
        cwd=_ROOT,
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},  # none of our secrets
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate(request)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, output


def _raise_for(reader: Reader, returncode: int) -> None:
    if returncode == 0:
        return
    log.warning(
        "a file could not be checked", extra=log_event("file_not_checked", returncode=returncode)
    )
    if returncode == -signal.SIGXCPU:
        raise _refused(reader, "takes too long to read")
    if returncode == MEMORY_EXIT:
        raise _refused(reader, "needs too much memory to be read")
    if returncode == DISK_EXIT:
        raise InsufficientStorage("The file's rows could not be stored; tell the administrator.")
    raise _refused(reader, "could not be read: its reader broke down over it")


def _refused(reader: Reader, reason: str) -> InvalidRequest:
    save_as, code = _ADVICE[reader]
    return InvalidRequest(f"The file {reason}; {save_as}.", "file", code)
