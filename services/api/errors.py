"""Every error leaves in OpenAI's shape, from this one place, with all four keys."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from shared.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    LeaseLost,
    NotFound,
    RateLimited,
    TailorError,
    UpstreamUnavailable,
)

_UNION_TAGS = {"int", "float", "str", "bool"}
_NAME = re.compile(r"\w+")


class MethodNotAllowed(TailorError):
    """The path exists, this method of it does not."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


def payload(error: TailorError) -> dict[str, Any]:
    """Return the error as OpenAI's JSON object."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def response(error: TailorError) -> JSONResponse:
    """Return the error as an HTTP answer, with the headers that steer the client's retries."""
    return JSONResponse(payload(error), status_code=error.status, headers=_headers(error))


def _headers(error: TailorError) -> dict[str, str]:
    match error:
        case Conflict():
            # The client would retry a 409 twice; a terminal state will not change.
            return {"x-should-retry": "false"}
        case UpstreamUnavailable() | RateLimited():
            return {"retry-after": "2"}
        case AuthenticationFailed():
            return {"www-authenticate": "Bearer"}
    return {}


def add_error_handlers(app: FastAPI) -> None:
    """Translate whatever a route may raise."""
    for kind, translate in TRANSLATIONS.items():
        app.add_exception_handler(kind, _handler(translate))


def _handler(
    translate: Callable[[Any], TailorError],
) -> Callable[[Request, Exception], JSONResponse]:
    def handle(_request: Request, error: Exception) -> JSONResponse:
        return response(translate(error))

    return handle


def translated(error: Exception) -> TailorError | None:
    """Return what ``error`` means to the caller; None when it is a fault of ours."""
    for kind, translate in TRANSLATIONS.items():
        if isinstance(error, kind):
            return translate(error)
    return None


def _own(error: TailorError) -> TailorError:
    if isinstance(error, LeaseLost):
        return Conflict("The job has just changed its state; look at it again.")
    return error


def _of_framework(error: HTTPException) -> TailorError:
    if isinstance(error.__cause__, ClientDisconnect):
        raise error.__cause__
    if isinstance(error.__cause__, TailorError):
        # FastAPI wraps what our limit raises while it reads a body.
        return error.__cause__
    if error.status_code == 404:
        return NotFound("There is nothing at this URL.", code="unknown_url")
    if error.status_code == 405:
        return MethodNotAllowed("This URL does not know this method.")
    return InvalidRequest(str(error.detail))


def _of_validation(error: RequestValidationError) -> TailorError:
    problems: Sequence[Any] = error.errors()
    first = problems[0]
    param = _param(first["loc"])
    if first["type"] == "extra_forbidden":
        return InvalidRequest(
            f"The parameter '{param}' is not supported.", param, "unsupported_parameter"
        )
    if first["type"] == "json_invalid":
        return InvalidRequest("The body is not valid JSON.", code="invalid_json")
    # The members of a union each say what they would have taken.
    messages = dict.fromkeys(p["msg"] for p in problems if _param(p["loc"]) == param)
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return InvalidRequest(f"{param or 'The body'}: {' or '.join(messages)}.", param, code)


def _param(location: Sequence[str | int]) -> str | None:
    names = [
        str(part)
        for part in location[1:]
        if isinstance(part, int) or (_NAME.fullmatch(part) and part not in _UNION_TAGS)
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
    TailorError: _own,
    HTTPException: _of_framework,
    RequestValidationError: _of_validation,
    OperationalError: _database_away,
    InterfaceError: _database_away,
    DisconnectionError: _database_away,
    PoolTimeout: _database_away,
    DataError: _cannot_be_stored,
}
