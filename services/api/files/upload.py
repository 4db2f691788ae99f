"""A multipart body streamed into the data folder: never /tmp, never more than 1 MiB in memory.

Whatever ends the reception early (too large, malformed, the client leaving) removes the folder.
"""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from services.api.files.filename import filename_of
from services.api.settings import ApiSettings
from shared.errors import InvalidRequest, PayloadTooLarge, RequestTimeout
from shared.ids import new_id
from shared.storage import LocalStore

WRITE_BYTES = 2**20
MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024


@dataclass(frozen=True)
class Upload:
    """A received body: the file on disk and the form's other fields."""

    path: Path
    filename: str
    bytes: int
    sha256: str
    fields: dict[str, str]


@asynccontextmanager
async def received(
    request: Request, store: LocalStore, settings: ApiSettings
) -> AsyncIterator[Upload]:
    """Receive the body into a folder of its own, which is gone when the block is left."""
    form = _Form(_boundary(request), settings.upload_max_bytes)
    folder = store.incoming() / new_id("in-")
    folder.mkdir(parents=True)
    try:
        path = folder / "raw"
        await _receive(_steady(request, settings), form, path)
        yield Upload(path, form.filename, form.bytes, form.sha256.hexdigest(), form.fields)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _receive(body: AsyncIterator[bytes], form: "_Form", path: Path) -> None:
    async with await anyio.open_file(path, "wb") as file:
        async for chunk in body:
            form.feed(chunk)
            if len(form.pending) >= WRITE_BYTES:
                await file.write(form.take())
        await file.write(form.take())
    form.check_complete()


async def _steady(request: Request, settings: ApiSettings) -> AsyncIterator[bytes]:
    """Yield the body's pieces; raise RequestTimeout when it stands still or only trickles in."""
    clock = asyncio.get_running_loop().time
    body, began, arrived = aiter(request.stream()), clock(), 0
    while True:
        late = began + 2 * settings.upload_idle_seconds
        late += arrived / settings.upload_min_bytes_per_second
        try:
            async with asyncio.timeout_at(min(late, clock() + settings.upload_idle_seconds)):
                chunk = await anext(body, None)
        except TimeoutError:
            raise RequestTimeout("The upload stood still or was too slow; send it again.") from None
        if chunk is None:
            return
        arrived += len(chunk)
        yield chunk


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest("Send the file as multipart/form-data, in the part 'file'.", "file")
    return options[b"boundary"]


class _Form:
    """The parser's callbacks and what they gather."""

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.bytes = 0
        self.sha256 = hashlib.sha256()
        self.pending = bytearray()
        """Bytes of the file that are not yet written."""
        self._max_bytes = max_bytes
        self._header = (b"", b"")
        self._disposition = b""
        self._field = ""
        self._value = bytearray()
        self._parts = 0
        self._has_file = False
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest("The multipart boundary is not usable.", "file") from error

    def feed(self, chunk: bytes) -> None:
        """Parse one piece of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest("The body is not valid multipart/form-data.", "file") from error

    def take(self) -> bytes:
        """Hand over the pending bytes, counted into the hash."""
        data = bytes(self.pending)
        self.pending.clear()
        self.sha256.update(data)
        return data

    def check_complete(self) -> None:
        """Raise InvalidRequest unless the form ended and had a file."""
        if not self._ended:
            raise InvalidRequest("The multipart body ends before its last part.", "file")
        if not self._has_file:
            raise InvalidRequest("The part 'file' is missing.", "file")

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise InvalidRequest("The form has too many parts.")
        self._disposition = b""
        self._value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = (b"", b"")

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode(errors="replace")
        if self._field != "file":
            return
        if self._has_file:
            raise InvalidRequest("Send one file at a time.", "file")
        self._has_file = True
        self.filename = clean_filename(
            filename_of(self._disposition, options.get(b"filename", b""))
        )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field != "file":
            self._value += data[start:end]
            if len(self._value) > MAX_FIELD_BYTES:
                raise InvalidRequest("A field of the form is too long.", self._field[:64])
            return
        self.bytes += end - start
        if self.bytes > self._max_bytes:
            raise PayloadTooLarge(f"The file is larger than {self._max_bytes} bytes.", "file")
        self.pending += data[start:end]

    def _part_end(self) -> None:
        if self._field != "file":
            self.fields[self._field] = self._value.decode(errors="replace")

    def _end(self) -> None:
        self._ended = True


def clean_filename(name: str) -> str:
    """Return a name that can be stored and shown; it never becomes part of a path."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in last if character.isprintable())
    return printable.strip()[-255:] or "upload.jsonl"
