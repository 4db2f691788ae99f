"""The API application: ``create_app(settings)`` builds its parts and routes; nothing at import."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from anyio import CapacityLimiter, Path
from fastapi import FastAPI, Security
from fastapi.middleware.cors import CORSMiddleware

from services.api import contract, health, unsupported
from services.api.account.routes import router as account_routes
from services.api.admin.routes import router as admin_routes
from services.api.auth import KeyRing
from services.api.comparisons.routes import router as comparison_routes
from services.api.completions.routes import router as completion_routes
from services.api.deps import LookUps, Parts
from services.api.errors import add_error_handlers
from services.api.files.checking import FileChecks
from services.api.files.routes import router as file_routes
from services.api.front_door import FrontDoor
from services.api.jobs.live import LiveJobs, Places
from services.api.jobs.routes import router as job_routes
from services.api.metrics import Metrics
from services.api.models.routes import router as model_routes
from services.api.rate_limits import RateLimits
from services.api.settings import ApiSettings
from shared.catalog import load_catalog
from shared.db import make_engine
from shared.replicas.directory import Directory
from shared.storage import LocalStore
from shared.task_queue import Doorbell, make_celery

EXPOSED_HEADERS = (
    "x-request-id",
    "x-should-retry",
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
)
"""What a page may read besides the few headers that browsers always show."""


def create_app(settings: ApiSettings) -> FastAPI:
    """Build the application; connections are opened when they are first needed."""
    parts = _build_parts(settings)
    app = FastAPI(
        title="Tailor",
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.parts = parts
    _include_routes(app)
    app.router.routes.extend(unsupported.routes())
    add_error_handlers(app)
    app.add_middleware(
        FrontDoor,
        keys=parts.keys,
        metrics=parts.metrics,
        upload_max_bytes=settings.upload_max_bytes,
        json_max_bytes=settings.json_max_bytes,
        receive_seconds=settings.receive_seconds,
        admin_port=settings.admin_port,
    )
    if settings.cors_origins:
        _allow_browsers(app, settings.cors_origins)
    return app


def _include_routes(app: FastAPI) -> None:
    app.include_router(contract.router)
    app.include_router(health.router, responses=contract.EVERYWHERE)
    key = [Security(contract.key)]
    for prefix, router in (
        ("/v1", file_routes),
        ("/v1", job_routes),
        ("/v1", comparison_routes),
        ("/v1", model_routes),
        ("/v1", account_routes),
        ("/v1", completion_routes),
        ("", admin_routes),
    ):
        app.include_router(router, prefix=prefix, responses=contract.WITH_KEY, dependencies=key)


def _allow_browsers(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Answer preflights, which come without a key, and let pages read every answer."""
    # Outside the front door, so that its refusals can be read as well. No credentials: keys are
    # sent by hand, and nothing here looks at a cookie.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[origin for origin in origins if origin == "*"],
        allow_origin_regex="|".join(_pattern(origin) for origin in origins),
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
    )


def _pattern(origin: str) -> str:
    return re.escape(origin).replace(r"\*", "[A-Za-z0-9.-]*")


def _build_parts(settings: ApiSettings) -> Parts:
    connections, patience = settings.database_connections, settings.database_answer_seconds
    system_engine = make_engine(
        settings.system_database_url.get_secret_value(), connections, patience
    )
    catalog, places = load_catalog(settings.models_dir), Places(system_engine)
    return Parts(
        settings=settings,
        catalog=catalog,
        store=LocalStore(settings.store_dir),
        tenant_engine=make_engine(settings.database_url.get_secret_value(), connections, patience),
        system_engine=system_engine,
        # The pools' overflow stays for what holds a connection only while it runs in a thread.
        session_limit=CapacityLimiter(connections),
        look_ups=LookUps(),
        keys=KeyRing(system_engine, settings.key_cache_seconds),
        doorbell=Doorbell(lambda: make_celery(settings.broker_url.get_secret_value())),
        metrics=Metrics(),
        replicas=Directory(system_engine, catalog),
        inference=_inference_client(settings),
        file_checks=FileChecks(settings),
        rates=RateLimits(settings.broker_url.get_secret_value()),
        places=places,
        live=LiveJobs(system_engine, places),
    )


def _inference_client(settings: ApiSettings) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        headers={"authorization": f"Bearer {settings.inference_secret.get_secret_value()}"},
        timeout=httpx.Timeout(settings.inference_timeout_seconds, connect=5),
        # Admission is the inference service's own business; here nobody waits for a connection.
        # An idle connection is given up before vLLM's server closes it, which it does after 5 s.
        limits=httpx.Limits(
            max_connections=None, max_keepalive_connections=100, keepalive_expiry=2
        ),
        trust_env=False,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    await Path(parts.store.incoming()).mkdir(parents=True, exist_ok=True)
    parts.doorbell.start()
    loading = asyncio.create_task(parts.rates.start())
    yield
    await loading
    await parts.rates.close()
    parts.doorbell.stop()
    await parts.inference.aclose()
    parts.tenant_engine.dispose()
    parts.system_engine.dispose()
