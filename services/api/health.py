"""Alive, ready, and the metrics."""

import itertools
from typing import Literal

import httpx
from anyio import to_thread
from fastapi import APIRouter, Response, Security
from pydantic import BaseModel
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from services.api.contract import WITH_KEY, ErrorOut, binary, key
from services.api.deps import Parts, PartsDep
from services.api.json_body import ApiRoute

router = APIRouter(route_class=ApiRoute)
State = Literal["ok", "unreachable"]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class PartsOut(BaseModel):
    """What the API works with."""

    database: State
    inference: State


class Readiness(BaseModel):
    """Whether the API can do its work."""

    status: Literal["ready", "not_ready"]
    parts: PartsOut


@router.get("/healthz")
async def healthz() -> Health:
    """Say that the process answers."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness | ErrorOut}})
async def readyz(parts: PartsDep, response: Response) -> Readiness:
    """Say whether the API can do its work: the database decides, inference is reported."""
    database = await to_thread.run_sync(_database, parts.tenant_engine)
    inference = await _inference(parts)
    ready = database == "ok"
    response.status_code = 200 if ready else 503
    return Readiness(
        status="ready" if ready else "not_ready",
        parts=PartsOut(database=database, inference=inference),
    )


@router.get(
    "/metrics",
    tags=["administration"],
    responses={200: binary("text/plain", "Prometheus's text format"), **WITH_KEY},
    dependencies=[Security(key)],
    response_class=Response,
)
def metrics(parts: PartsDep) -> Response:
    """Return Prometheus's text format (administrator only)."""
    return Response(parts.metrics.text(), media_type="text/plain; version=0.0.4")


def _database(engine: Engine) -> State:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return "unreachable"
    return "ok"


async def _inference(parts: Parts) -> State:
    """Say whether any inference process answers."""
    try:
        served = await to_thread.run_sync(parts.replicas.served)
    except SQLAlchemyError:
        return "unreachable"
    for replica in itertools.chain.from_iterable(each.all for each in served.values()):
        try:
            answer = await parts.inference.get(f"{replica.url}/readyz", timeout=1)
        except httpx.HTTPError:
            continue
        if answer.status_code == 200:
            return "ok"
    return "unreachable"
