"""Every error leaves in OpenAI's shape, from this one place."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from services.api.rate_limits import LimitReached
from shared.errors import (
    AuthenticationFailed,
    Conflict,
    InsufficientStorage,
    InvalidRequest,
    LeaseLost,
    NotFound,
    RateLimited,
    RequestTimeout,
    TailorError,
    UpstreamUnavailable,
    payload,
)

_UNION_TAGS = {"int", "float", "str", "bool"}
_NAME = re.compile(r"\w+")
_HEADER = re.compile(r"[\w-]+")
MAX_NAME = 64
"""Of a caller's own names no more than this is repeated to the caller."""
OBJECT_WANTED = {"model_type", "model_attributes_type", "dict_type"}
UNSUPPORTED = "unsupported"
"""Type of a validator's own error whose message says by name what is not supported."""


class MethodNotAllowed(TailorError):
    """The path exists, this method of it does not."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"

    allowed: str = ""
    """The methods it knows, for the ``Allow`` header."""

    @classmethod
    def of(cls, methods: Sequence[str]) -> "MethodNotAllowed":
        """Say which methods a URL knows."""
        allowed = ", ".join(sorted(methods))
        error = cls(f"This URL knows only {allowed}.")
        error.allowed = allowed
        return error


def response(error: TailorError) -> JSONResponse:
    """Return the error as an HTTP answer, with the headers that steer the client's retries."""
    return JSONResponse(payload(error), status_code=error.status, headers=_headers(error))


def _headers(error: TailorError) -> Mapping[str, str]:
    headers: Mapping[str, str] = {}
    match error:
        case LimitReached():
            headers = error.headers
        case Conflict() | InsufficientStorage():
            # The client would retry it twice; a terminal state, or a full disk, will not change.
            headers = {"x-should-retry": "false"}
        case UpstreamUnavailable() | RateLimited():
            headers = {"retry-after": "2"}
        case MethodNotAllowed():
            headers = {"allow": error.allowed}
        case RequestTimeout():
            headers = {"connection": "close"}
        case AuthenticationFailed():
            headers = {"www-authenticate": "Bearer"}
    return headers


def add_error_handlers(app: FastAPI) -> None:
    """Translate whatever a route may raise."""
    for kind, translate in TRANSLATIONS.items():
        app.add_exception_handler(kind, _handler(translate))


def _handler(
    translate: Callable[[Any], TailorError],
) -> Callable[[Request, Exception], JSONResponse]:
    def handle(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException) and error.status_code == 405:
            return response(MethodNotAllowed.of(_methods(request)))
        return response(translate(error))

    return handle


def _methods(request: Request) -> list[str]:
    """Return all methods of a path: the framework names those of its first route only."""
    matching = [
        route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE
    ]
    return sorted({method for route in matching for method in route.methods})


def translated(error: Exception) -> TailorError | None:
    """Return what ``error`` means to the caller; None when it is a fault of ours."""
    for kind, translate in TRANSLATIONS.items():
        if isinstance(error, kind):
            return translate(error)
    return None


def _from_tailor_error(error: TailorError) -> TailorError:
    if isinstance(error, LeaseLost):
        return Conflict("The job has just changed its state; look at it again.")
    return error


def _from_http_exception(error: HTTPException) -> TailorError:
    if isinstance(error.__cause__, ClientDisconnect):
        raise error.__cause__
    if isinstance(error.__cause__, TailorError):
        # FastAPI wraps what our limit raises while it reads a body.
        return error.__cause__
    if error.status_code == 404:
        return NotFound("There is nothing at this URL.", code="unknown_url")
    return InvalidRequest(str(error.detail))


def _from_validation_error(error: RequestValidationError) -> TailorError:
    problems: Sequence[Any] = error.errors()
    first = problems[0]
    param = _param(first["loc"])
    if first["type"] == "extra_forbidden":
        return InvalidRequest(
            f"The parameter '{param}' is not supported.", param, "unsupported_parameter"
        )
    own = next((p for p in problems if p["type"] == UNSUPPORTED), None)
    if own is not None:
        param = _param(own["loc"])
        return InvalidRequest(f"{param}: {own['msg']}.", param, "unsupported_parameter")
    # The members of a union each say what they would have taken.
    messages = dict.fromkeys(_message(p) for p in problems if _param(p["loc"]) == param)
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    subject = f"The header {param}" if first["loc"][0] == "header" else param or "The body"
    return InvalidRequest(f"{subject}: {' or '.join(messages)}.", param, code)


def _message(problem: Mapping[str, Any]) -> str:
    if problem["type"] in OBJECT_WANTED:
        return "Input should be a JSON object"
    return str(problem["msg"]).removeprefix("Value error, ")


def _param(location: Sequence[str | int]) -> str | None:
    """Return the place as callers write it, without the names that the schemas' unions have."""
    name = _HEADER if location[0] == "header" else _NAME
    names = [
        str(part)[:MAX_NAME]
        for part in location[1:]
        if isinstance(part, int) or (name.fullmatch(part) and part not in _UNION_TAGS)
    ]
    return ".".join(names) or None


def _database_away(_error: Exception) -> TailorError:
    return UpstreamUnavailable(
        "The database cannot be reached; it is not known whether anything was changed.",
        code="database_unavailable",
    )


def _cannot_be_stored(_error: Exception) -> TailorError:
    return InvalidRequest("The request holds a character or number that cannot be stored.")


TRANSLATIONS: dict[type[Exception], Callable[[Any], TailorError]] = {
    TailorError: _from_tailor_error,
    HTTPException: _from_http_exception,
    RequestValidationError: _from_validation_error,
    OperationalError: _database_away,
    InterfaceError: _database_away,
    DisconnectionError: _database_away,
    PoolTimeout: _database_away,
    DataError: _cannot_be_stored,
}
