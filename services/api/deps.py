"""What routes ask for: the parts built at start, the caller's tenant, and a transaction."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated
from weakref import WeakValueDictionary

import httpx
from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.api.auth import Caller, KeyRing
from services.api.files.checking import FileChecks
from services.api.jobs.live import LiveJobs, Places
from services.api.metrics import Metrics
from services.api.rate_limits import RateLimits
from services.api.settings import ApiSettings
from shared.catalog import Catalog
from shared.db import tenant_transaction, transaction
from shared.replicas.directory import Directory
from shared.storage import LocalStore
from shared.task_queue import Doorbell
from shared.tenants.limits import Limits


class LookUps:
    """How many of one tenant's completions may look their model up in the database at a time.

    All tenants' threads come from one pool, first come, first served: without this a burst of one
    tenant's requests is in front of everybody's.
    """

    AT_ONCE = 4

    def __init__(self) -> None:
        self._limiters: WeakValueDictionary[str, CapacityLimiter] = WeakValueDictionary()

    def of(self, tenant_id: str) -> CapacityLimiter:
        """Return the tenant's limiter, to be held while looking up."""
        limiter = self._limiters.get(tenant_id)
        if limiter is None:
            limiter = self._limiters[tenant_id] = CapacityLimiter(self.AT_ONCE)
        return limiter


@dataclass(frozen=True)
class Parts:
    """Everything with a life as long as the process."""

    settings: ApiSettings
    catalog: Catalog
    store: LocalStore
    tenant_engine: Engine
    """Connects as tailor_api."""
    system_engine: Engine
    session_limit: CapacityLimiter
    """How many requests may have a session of their own; the others wait without a connection."""
    look_ups: LookUps
    keys: KeyRing
    doorbell: Doorbell
    metrics: Metrics
    replicas: Directory
    """Who serves which base model."""
    inference: httpx.AsyncClient
    """Connections to them."""
    rates: RateLimits
    file_checks: FileChecks
    places: Places
    live: LiveJobs


async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def _tenant_id(request: Request) -> str:
    caller: Caller = request.state.caller
    return caller.as_tenant()


async def _limits(request: Request, parts: "PartsDep") -> Limits:
    caller: Caller = request.state.caller
    return parts.settings.limits_of(caller.own_limits)


PartsDep = Annotated[Parts, Depends(_parts)]
TenantDep = Annotated[str, Depends(_tenant_id)]
LimitsDep = Annotated[Limits, Depends(_limits)]
"""What the caller's tenant may use."""


async def _place(parts: PartsDep) -> AsyncIterator[None]:
    # Between entering its session, running and leaving, a request waits for a thread. Without a
    # limit below the pool's size such requests hold every connection while the threads they wait
    # for are all blocked waiting for a connection.
    async with parts.session_limit:
        yield


PlaceDep = Annotated[None, Depends(_place, scope="function")]


def _tenant_session(_place: PlaceDep, parts: PartsDep, tenant_id: TenantDep) -> Iterator[Session]:
    with tenant_transaction(parts.tenant_engine, tenant_id) as session:
        yield session


def _system_session(_place: PlaceDep, parts: PartsDep) -> Iterator[Session]:
    with transaction(parts.system_engine) as session:
        yield session


# scope="function": the transaction is committed before the answer is sent.
SessionDep = Annotated[Session, Depends(_tenant_session, scope="function")]
SystemSessionDep = Annotated[Session, Depends(_system_session, scope="function")]
