"""Chat completions and completions, streamed or whole."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from services.api.completions import service
from services.api.completions.answer_schemas import ChatCompletion, TextCompletion
from services.api.completions.answers import CHAT, TEXT, Shape
from services.api.completions.connection import while_connected
from services.api.completions.schemas import ChatIn, CompletionIn, CompletionOptions
from services.api.contract import Responses, errors
from services.api.deps import LimitsDep, Parts, PartsDep, TenantDep
from services.api.json_body import ApiRoute
from services.api.rate_limits import Allowance
from shared.errors import Conflict, NotFound, RateLimited, UnsupportedMediaType

router = APIRouter(tags=["completions"], route_class=ApiRoute)


EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}


def _responses(answer: type[BaseModel]) -> Responses:
    well = {
        "model": answer,
        "description": "The answer; with `stream` in events, the last one `[DONE]`",
        "content": {"text/event-stream": {"itemSchema": EVENT}},
    }
    refusals = errors(NotFound, Conflict, UnsupportedMediaType, RateLimited)
    return {200: well, **refusals}


@router.post("/chat/completions", responses=_responses(ChatCompletion))
async def chat(
    body: ChatIn, request: Request, parts: PartsDep, tenant_id: TenantDep, limits: LimitsDep
) -> Response:
    """Answer a chat."""
    allowance = await parts.rates.admit(tenant_id, limits)
    return await _complete(request, parts, allowance, CHAT, body)


@router.post("/completions", responses=_responses(TextCompletion))
async def complete(
    body: CompletionIn, request: Request, parts: PartsDep, tenant_id: TenantDep, limits: LimitsDep
) -> Response:
    """Continue a text."""
    allowance = await parts.rates.admit(tenant_id, limits)
    return await _complete(request, parts, allowance, TEXT, body)


async def _complete(
    request: Request, parts: Parts, allowance: Allowance, shape: Shape, asked: CompletionOptions
) -> Response:
    try:
        call = await service.prepare(parts, allowance, shape, asked)
    except BaseException:
        await parts.rates.settle(allowance, tokens=0)
        raise
    if asked.stream:
        stream: Response = await while_connected(request, lambda: service.stream(call))
        stream.headers.update(allowance.headers)
        return stream
    found: dict[str, Any] = await while_connected(request, lambda: service.answer(call))
    return JSONResponse(found, headers=allowance.headers)
