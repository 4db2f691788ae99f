"""Plain bytes out of a file that may be gzipped, within limits."""

import gzip
import io
import zlib
from pathlib import Path
from typing import IO

from shared.files.forms import Unreadable

MAX_UNPACKED_BYTES = 512 * 2**20
_GZIP = b"\x1f\x8b"


def opened_plain(path: Path) -> IO[bytes]:
    """Open the file for reading; what is gzipped is unpacked on the way."""
    with path.open("rb") as file:
        if file.read(2) != _GZIP:
            return path.open("rb")
    return io.BufferedReader(_Unpacked(path), 2**17)


class _Unpacked(io.RawIOBase):
    """Unpacked bytes; reading raises Unreadable where they end badly."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.open(path)  # noqa: SIM115  closed with this object
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise Unreadable(1, "the gzip file is damaged or cut off") from None
        if self._count == 0 and data.startswith((_GZIP, b"PK\x03\x04")):
            raise Unreadable(1, "the gzip file holds another packed file; unpack it and send that")
        self._count += len(data)
        if self._count > MAX_UNPACKED_BYTES:
            raise Unreadable(1, f"more than {MAX_UNPACKED_BYTES} bytes when unpacked")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
