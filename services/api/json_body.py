"""The JSON body of a request as people send it: packed, with a mark before it, unlabelled, broken.

What cannot be read is refused in the sender's words; the schemas only ever see a JSON object.
"""

import json
import re
import zlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, NoReturn

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from shared.errors import InvalidRequest, PayloadTooLarge, TailorError, UnsupportedMediaType

JSON_TYPE = (b"content-type", b"application/json")
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_ALONE = re.compile("[\ud800-\udfff]")


class ApiRoute(APIRoute):
    """A route of this API: GET answers HEAD as well, and ``JsonRequest`` reads the body."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if "GET" in self.methods:
            self.methods.add("HEAD")

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handler = super().get_route_handler()
        if self.body_field is None:
            return handler

        async def read_and_handle(request: Request) -> Response:
            return await handler(JsonRequest(request))

        return read_and_handle


class JsonRequest(Request):
    """A request whose body is JSON, whatever its Content-Type says."""

    def __init__(self, request: Request) -> None:
        headers = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
        # FastAPI reads as JSON only what is called so, and curl calls everything a form.
        super().__init__({**request.scope, "headers": [*headers, JSON_TYPE]}, request.receive)
        self._sent_type = request.headers.get("content-type", "")
        self._max_bytes: int = request.app.state.parts.settings.json_max_bytes
        self._object: dict[str, Any] | None = None

    async def body(self) -> bytes:
        """Return the body; raise InvalidRequest when there is none."""
        body = await super().body()
        if not body:
            raise InvalidRequest("The body is empty; send a JSON object.", code="invalid_json")
        return body

    async def json(self) -> dict[str, Any]:
        """Return the object that the body is; raise InvalidRequest in the sender's words."""
        if self._object is None:
            packed = await self.body()
            encodings = self.headers.get("content-encoding", "")
            data = unpacked(packed, encodings, self._max_bytes)
            self._object = parsed(data, self._sent_type)
        return self._object


def unpacked(data: bytes, encodings: str, max_bytes: int) -> bytes:
    """Undo gzip and deflate, never making more than ``max_bytes``."""
    names = [name.strip().lower() for name in encodings.split(",")]
    names = [name for name in names if name not in {"", "identity"}]
    if len(names) > 1 or not {"gzip", "x-gzip", "deflate"}.issuperset(names):
        raise UnsupportedMediaType(
            f"Bodies packed as '{encodings[:64]}' are not read; send the JSON as it is, or gzip.",
            "Content-Encoding",
            "unsupported_content_encoding",
        )
    return _inflated(data, names[0], max_bytes) if names else data


def _inflated(data: bytes, name: str, max_bytes: int) -> bytes:
    try:
        return _inflate(data, GZIP_OR_ZLIB, max_bytes)
    except zlib.error as error:
        if name == "deflate":
            # Some send it without its frame, and servers have long taken it so.
            with suppress(zlib.error):
                return _inflate(data, -zlib.MAX_WBITS, max_bytes)
        raise InvalidRequest(
            f"The header Content-Encoding says '{name}', but the body is not packed so.",
            "Content-Encoding",
            "invalid_content_encoding",
        ) from error


def _inflate(data: bytes, window: int, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(window)
    plain = inflater.decompress(data, max_bytes + 1)
    if len(plain) > max_bytes:
        raise PayloadTooLarge(f"The unpacked body is larger than the limit of {max_bytes} bytes.")
    if not inflater.eof:
        raise zlib.error("it ends too early")
    return plain


def parsed(data: bytes, sent_type: str = "") -> dict[str, Any]:
    """Return the JSON object; raise InvalidRequest naming what is wrong and where."""
    try:
        found = json.loads(_text(data, sent_type))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        _refuse(f"The body is not valid JSON: {error.msg} at {where}.{_hint(sent_type)}")
    except RecursionError:
        _refuse("The body is not usable JSON: it is nested too deeply.")
    except ValueError:
        _refuse("The body is not usable JSON: it holds a number of too many digits.")
    if not isinstance(found, dict):
        _refuse("The body must be a JSON object: {…}.")
    if _HALF_CHARACTER.search(data):
        _refuse_half_characters(found)
    return found


def _text(data: bytes, sent_type: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} is not UTF-8"
    else:
        if "\0" not in text:
            return text
        place = "it looks like UTF-16 or UTF-32"
    said = re.search(r"charset=\"?([\w.:-]{1,32})", sent_type)
    labelled = f" (its Content-Type says {said[1]})" if said else ""
    raise InvalidRequest(
        f"The body is not encoded in UTF-8: {place}{labelled}. Send the JSON in UTF-8; in a "
        "Windows console, put it into a UTF-8 file and send that.",
        code="invalid_json",
    )


def _hint(sent_type: str) -> str:
    kind = sent_type.partition(";")[0].strip().lower()
    if not kind or kind.endswith("json"):
        return ""
    return f" It is labelled '{kind[:64]}'; send JSON with Content-Type: application/json."


def _refuse(message: str) -> NoReturn:
    raise InvalidRequest(message, code="invalid_json") from None


def _refuse_half_characters(found: dict[str, Any]) -> None:
    """Raise for the first string with half of a surrogate pair: nothing behind here can send it."""
    for place, text in _strings(found, ()):
        if _ALONE.search(text):
            param = ".".join(str(name) for name in place)
            raise _half_character(param)


def _half_character(param: str) -> TailorError:
    return InvalidRequest(
        f"{param or 'The body'}: half of a character (a lone surrogate such as \\ud83d); the text "
        "was cut inside an emoji.",
        param or None,
        "invalid_value",
    )


def _strings(
    value: object, place: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    # A stack, because JSON may be nested as deep as Python can count.
    waiting: list[tuple[tuple[str | int, ...], object]] = [(place, value)]
    while waiting:
        at, item = waiting.pop()
        if isinstance(item, str):
            yield at, item
        elif isinstance(item, dict):
            waiting += [(at, key) for key in item]
            waiting += [((*at, key[:64]), inner) for key, inner in item.items()]
        elif isinstance(item, list):
            waiting += [((*at, index), inner) for index, inner in enumerate(item)]
