"""Chat completions and completions, streamed or whole."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from services.api.completions import service
from services.api.completions.answers import CHAT, TEXT, Shape
from services.api.completions.connection import while_connected
from services.api.completions.schemas import ChatIn, CompletionIn, CompletionOptions
from services.api.deps import Parts, PartsDep, TenantDep
from services.api.json_body import ApiRoute

router = APIRouter(route_class=ApiRoute)


@router.post("/chat/completions")
async def chat(body: ChatIn, request: Request, parts: PartsDep, tenant_id: TenantDep) -> Response:
    """Answer a chat."""
    return await _complete(request, parts, tenant_id, CHAT, body)


@router.post("/completions")
async def complete(
    body: CompletionIn, request: Request, parts: PartsDep, tenant_id: TenantDep
) -> Response:
    """Continue a text."""
    return await _complete(request, parts, tenant_id, TEXT, body)


async def _complete(
    request: Request, parts: Parts, tenant_id: str, shape: Shape, asked: CompletionOptions
) -> Response:
    call = await service.prepare(parts, tenant_id, shape, asked)
    if asked.stream:
        return await while_connected(request, lambda: service.stream(call))
    found: dict[str, Any] = await while_connected(request, lambda: service.answer(call))
    return JSONResponse(found)
