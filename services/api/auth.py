"""Who is calling: the key's hash is looked up with the system role and remembered for seconds."""

import time
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from sqlalchemy import Engine

from shared.clock import Clock
from shared.db import transaction
from shared.errors import AuthenticationFailed, PermissionDenied
from shared.tenants.keys import find_key, hash_of
from shared.tenants.models import Tenant

MAX_REMEMBERED = 10_000


@dataclass(frozen=True)
class Caller:
    """The owner of a valid key; without a tenant it is the administrator."""

    key_id: str
    tenant_id: str | None
    own_limits: dict[str, Any] | None = None
    """The tenant's, over the deployment's."""

    def as_tenant(self) -> str:
        """Return the tenant's id; raise PermissionDenied for the administrator."""
        if self.tenant_id is None:
            raise PermissionDenied("The administrator's key opens the admin routes and /metrics.")
        return self.tenant_id

    def require_admin(self) -> None:
        """Raise PermissionDenied unless this is the administrator."""
        if self.tenant_id is not None:
            raise PermissionDenied("This route needs the administrator's key.")


class KeyRing:
    """Valid keys by hash. Unknown ones are not remembered, so a new key works at once."""

    def __init__(self, engine: Engine, seconds: float, clock: Clock = time.monotonic) -> None:
        self._engine = engine
        self._seconds = seconds
        self._clock = clock
        self._known: dict[str, tuple[float, Caller]] = {}

    async def caller(self, authorization: str | None) -> Caller:
        """Return the owner of the key in an Authorization header; raise AuthenticationFailed."""
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise AuthenticationFailed(
                "No API key was sent. Use the header 'Authorization: Bearer YOUR_KEY'."
            )
        digest = hash_of(secret)
        until, caller = self._known.get(digest, (0.0, None))
        if caller is None or until <= self._clock():
            self._known.pop(digest, None)
            caller = await to_thread.run_sync(self._look_up, secret)
            self._remember(digest, caller)
        return caller

    def _look_up(self, secret: str) -> Caller:
        with transaction(self._engine) as session:
            key = find_key(session, secret)
            if key is None:
                raise AuthenticationFailed("The API key is not valid, or it was revoked.")
            tenant = session.get(Tenant, key.tenant_id) if key.tenant_id else None
            return Caller(key.id, key.tenant_id, tenant.limits if tenant else None)

    def _remember(self, digest: str, caller: Caller) -> None:
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[digest] = (self._clock() + self._seconds, caller)
