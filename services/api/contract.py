"""The API's description of itself: OpenAPI at ``/openapi.json``, without a key.

Whoever may reach the API may know its shape; nothing of the installation is in it. There is no page
beside it: FastAPI's loads scripts from another host. A route declares with ``errors`` how else than
well it can end; what every route can answer is added in ``app.py``.
"""

import inspect
from copy import copy
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from services.api.areas import is_admin
from shared.errors import (
    AuthenticationFailed,
    HeadersTooLarge,
    InvalidRequest,
    PayloadTooLarge,
    PermissionDenied,
    RequestTimeout,
    TailorError,
    UpstreamUnavailable,
)

Responses = dict[int | str, dict[str, Any]]
DESCRIPTION = """\
OpenAI's shapes, so that the official `openai` clients work unchanged. Every answer carries
`x-request-id`; every `GET` answers `HEAD` as well; a method that a URL does not know is a 405 with
`Allow`, and a URL that is not here a 404. Bodies may be packed with gzip or deflate.
"""

router = APIRouter()


class ErrorFields(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    """The field of the request that is to be mended."""
    code: str | None


class ErrorOut(BaseModel):
    """Every error, in OpenAI's shape."""

    error: ErrorFields


def errors(*kinds: type[TailorError]) -> Responses:
    """Return FastAPI's ``responses`` of a route that can end in these errors."""
    return {kind.status: _error(inspect.getdoc(kind) or kind.__name__) for kind in kinds}


def binary(media_type: str, description: str) -> dict[str, Any]:
    """Return one of FastAPI's ``responses``: bytes, or a text that is no JSON."""
    return {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}


def _error(description: str) -> dict[str, Any]:
    return {"model": ErrorOut, "description": description.splitlines()[0]}


EVERYWHERE: Responses = errors(
    InvalidRequest, RequestTimeout, HeadersTooLarge, UpstreamUnavailable
) | {500: _error("The server made a mistake; it has been logged.")}
WITH_KEY: Responses = EVERYWHERE | errors(AuthenticationFailed, PermissionDenied, PayloadTooLarge)
"""Of every route that needs a key: the front door answers before the route does."""
key = HTTPBearer(
    auto_error=False, description="A tenant's key; the admin key for /admin and /metrics."
)
"""For the document alone: the front door has looked at the key long before."""


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """Return the document, made when it is first asked for."""
    app: FastAPI = request.app
    if app.openapi_schema is None:
        app.openapi_schema = document(app)
    return JSONResponse(app.openapi_schema)


def document(app: FastAPI) -> dict[str, Any]:
    """Describe the routes that the public port answers."""
    own_port = app.state.parts.settings.admin_port is not None
    found = get_openapi(
        title=app.title,
        version="1",
        description=DESCRIPTION,
        routes=[
            _without_head(route)
            for route in app.routes
            if isinstance(route, APIRoute) and not (own_port and is_admin(route.path))
        ],
    )
    _remove_422(found)
    return found


def _without_head(route: APIRoute) -> APIRoute:
    shown = copy(route)
    shown.methods = route.methods - {"HEAD"}
    return shown


def _remove_422(found: dict[str, Any]) -> None:
    """Take out what FastAPI adds by itself: a body or parameter that is wrong is a 400 here."""
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)
