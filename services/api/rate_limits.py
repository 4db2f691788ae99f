"""Requests and tokens a minute and requests at a time, for each tenant; counters live in Redis.

A window begins with its first request and lasts a minute (``limits``' fixed window: one number a
counter, whatever the rate). What a request costs in tokens is known when it has ended, and is
counted then; how far a minute may be overdrawn is bounded by the requests at a time. Where Redis is
away nothing is counted and nothing is refused: a limit protects the service, it is not its purpose.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio import to_thread

from shared.clock import Clock
from shared.errors import RateLimited
from shared.telemetry import log_event
from shared.tenants.limits import Limits

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import FixedWindowRateLimiter
    from redis.asyncio import ConnectionPool

PATIENCE_SECONDS = 0.25
"""Longest wait for Redis within one request."""
PAUSE_SECONDS = 5.0
"""After a failure Redis is left alone for so long: nobody else shall wait for it."""
KEY_PREFIX = "tailor-limits"
T = TypeVar("T")

log = logging.getLogger(__name__)


class LimitReached(RateLimited):
    """One of the tenant's limits; says when to come again."""

    headers: Mapping[str, str] = {}

    @classmethod
    def of(
        cls, message: str, code: str, seconds: float, headers: Mapping[str, str]
    ) -> "LimitReached":
        """Say which limit, and after how many seconds it may be tried again."""
        error = cls(message, None, code)
        error.headers = {"retry-after": str(max(1, ceil(seconds))), **headers}
        return error


@dataclass
class Allowance:
    """One admitted request: what its answer says of the limits, and the way to give it back."""

    tenant_id: str
    limits: Limits
    headers: dict[str, str] = field(default_factory=dict)
    open: bool = True


@dataclass(frozen=True)
class _Window:
    """How one counter stands."""

    name: str
    limit: int
    remaining: int
    seconds: float
    """Until it begins anew."""

    def headers(self) -> dict[str, str]:
        return {
            f"x-ratelimit-limit-{self.name}": str(self.limit),
            f"x-ratelimit-remaining-{self.name}": str(self.remaining),
            f"x-ratelimit-reset-{self.name}": f"{self.seconds:.3g}s",
        }


class RateLimits:
    """The counters of all tenants, as this process sees them."""

    def __init__(self, broker_url: str, clock: Clock = time.monotonic) -> None:
        self._url = broker_url
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._limiter: FixedWindowRateLimiter | None = None
        self._pool: ConnectionPool | None = None
        self._away_until = 0.0

    async def start(self) -> None:
        """Load the library and open Redis, beside the start: it takes most of a second."""
        self._limiter, self._pool = await to_thread.run_sync(_open, self._url)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.disconnect()

    async def admit(self, tenant_id: str, limits: Limits) -> Allowance:
        """Count one request; raise LimitReached when it is one too many."""
        if self._running[tenant_id] >= limits.concurrent_requests:
            raise LimitReached.of(
                f"At most {limits.concurrent_requests} requests may run at the same time.",
                "concurrent_requests_exceeded",
                1,
                {},
            )
        # Taken before anything is awaited, or a burst would pass while Redis is asked.
        self._running[tenant_id] += 1
        allowance = Allowance(tenant_id, limits)
        try:
            allowance.headers = await self._count(allowance)
        except BaseException:
            self._release(allowance)
            raise
        return allowance

    async def settle(self, allowance: Allowance, tokens: int) -> None:
        """Give the place back and count what the request has cost; at most once."""
        if not self._release(allowance) or not tokens:
            return
        item = _items(allowance.limits)["tokens"]
        # A caller who has left has cancelled this task; the tokens were spent all the same.
        with anyio.CancelScope(shield=True):
            await self._asked(lambda limiter: limiter.hit(item, allowance.tenant_id, cost=tokens))

    def _release(self, allowance: Allowance) -> bool:
        was_open, allowance.open = allowance.open, False
        if was_open:
            self._running[allowance.tenant_id] -= 1
        return was_open

    async def _count(self, allowance: Allowance) -> dict[str, str]:
        tenant_id, items = allowance.tenant_id, _items(allowance.limits)

        async def ask(limiter: "FixedWindowRateLimiter") -> tuple[bool, list[Any]]:
            counted = await limiter.hit(items["requests"], tenant_id)
            stats = (limiter.get_window_stats(item, tenant_id) for item in items.values())
            return counted, await asyncio.gather(*stats)

        answer = await self._asked(ask)
        if answer is None:
            return {}
        counted, stats = answer
        windows = [
            _Window(name, item.amount, stat.remaining, max(0.0, stat.reset_time - time.time()))
            for (name, item), stat in zip(items.items(), stats, strict=True)
        ]
        requests, tokens = windows
        headers = requests.headers() | tokens.headers()
        for window, exceeded in ((requests, not counted), (tokens, tokens.remaining <= 0)):
            if exceeded:
                raise LimitReached.of(
                    f"Rate limit reached: {window.limit} {window.name} a minute."
                    f" Please try again in {max(1, ceil(window.seconds))} s.",
                    "rate_limit_exceeded",
                    window.seconds,
                    headers,
                )
        return headers

    async def _asked(
        self, question: Callable[["FixedWindowRateLimiter"], Awaitable[T]]
    ) -> T | None:
        """Return Redis's answer; None where it is away, or was a moment ago."""
        if self._limiter is None or self._clock() < self._away_until:
            return None
        try:
            # Not anyio's: the library gives up after as long, and where the loop sees both at once,
            # what gather raises lacks anyio's mark and passes for the caller's leaving.
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await question(self._limiter)
        except Exception as error:  # noqa: BLE001  whatever it is, it fails no request
            self._away_until = self._clock() + PAUSE_SECONDS
            log.warning(
                "rate limits are not counted",
                extra=log_event("rate_limits_not_counted", reason=type(error).__name__),
            )
            return None


def _items(limits: Limits) -> "dict[str, RateLimitItem]":
    from limits import RateLimitItemPerMinute  # noqa: PLC0415  loaded by ``start``

    return {
        "requests": RateLimitItemPerMinute(limits.requests_per_minute, namespace="requests"),
        "tokens": RateLimitItemPerMinute(limits.tokens_per_minute, namespace="tokens"),
    }


def _open(broker_url: str) -> "tuple[FixedWindowRateLimiter, ConnectionPool]":
    from limits.aio.storage import RedisStorage  # noqa: PLC0415  the API answers before it is there
    from limits.aio.strategies import FixedWindowRateLimiter  # noqa: PLC0415  likewise
    from redis.asyncio import ConnectionPool  # noqa: PLC0415  likewise

    patience = {
        "socket_connect_timeout": PATIENCE_SECONDS,
        "socket_timeout": PATIENCE_SECONDS,
    }
    pool = ConnectionPool.from_url(broker_url.replace("redis+socket://", "unix://", 1), **patience)
    connection: Any = {"connection_pool": pool}
    storage = RedisStorage(
        "async+redis://", implementation="redispy", key_prefix=KEY_PREFIX, **connection
    )
    return FixedWindowRateLimiter(storage), pool
