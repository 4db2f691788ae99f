"""Which inference process is asked: decided from what is in flight, with no I/O and no clock.

Every adapter has an order of its own over the processes of its base model, the highest hash of both
first (rendezvous hashing, Thaler and Ravishankar 1998), so that one that comes or goes moves only
its own adapters. Its requests go to the first of that order, which has it in memory; those of a
popular one are spread over as many as its demand needs. Nobody is given much more than the others
(bounded loads, Mirrokni, Thorup and Zadimoghaddam 2016). The base model itself is asked anywhere.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil

EVEN = 1.25
"""Nobody is given more than this part of the mean, by slots."""
EASE = 4
"""Up to a quarter of its slots nobody is busy: staying is worth more than an even load. So much of
one adapter is one process's."""
COOLING_SECONDS = 30.0
"""An adapter's demand must have been lower for so long before it leaves a process."""
FAILED_SECONDS = 5.0
"""Whoever did not answer is asked last for so long."""


@dataclass(frozen=True)
class Replica:
    """One inference process."""

    id: str
    url: str
    places: int
    """Adapters that it runs at once."""
    slots: int
    """Sequences that it runs at once."""


@dataclass
class _Spread:
    """Over how many processes an adapter's requests go, and until when at least."""

    width: int
    until: float


class Router:
    """Orders the processes for each request; ``now`` is any clock of seconds that never goes back.

    What it knows is what its own process has in flight: several gateways agree on every adapter's
    order, and each spreads its own requests.
    """

    def __init__(self) -> None:
        self._of_replica: Counter[str] = Counter()
        self._of_adapter: Counter[str] = Counter()
        self._spreads: dict[str, _Spread] = {}
        self._failed_at: dict[str, float] = {}

    def order(self, adapter: str | None, replicas: Sequence[Replica], now: float) -> list[Replica]:
        """Return all of ``replicas``, the one to be asked first; ``adapter`` None is the base."""
        by_load = sorted(replicas, key=lambda each: (self._load(each), each.id))
        if adapter is None:
            first, others = by_load, []
        else:
            own = sorted(replicas, key=lambda each: _weight(adapter, each), reverse=True)
            width = self._width(adapter, replicas, now)
            first, others = [each for each in by_load if each in own[:width]], own[width:]
        total, slots = self._of_replica.total() + 1, sum(each.slots for each in replicas)

        def put_off(each: Replica) -> tuple[bool, bool]:
            fair = ceil(EVEN * total * each.slots / slots)
            busy = self._of_replica[each.id] >= max(fair, each.slots // EASE)
            failed_at = self._failed_at.get(each.id)
            return failed_at is not None and now - failed_at < FAILED_SECONDS, busy

        return sorted([*first, *others], key=put_off)

    def began(self, replica_id: str, adapter: str | None, now: float) -> None:
        """Note that a request is sent to a process."""
        self._of_replica[replica_id] += 1
        if adapter is not None:
            self._of_adapter[adapter] += 1
        self._forget(now)

    def ended(self, replica_id: str, adapter: str | None, now: float) -> None:
        """Note that it has ended, however it did."""
        _less(self._of_replica, replica_id)
        if adapter is not None:
            _less(self._of_adapter, adapter)
        self._forget(now)

    def failed(self, replica_id: str, now: float) -> None:
        """Note that a process did not answer."""
        self._failed_at[replica_id] = now

    def _load(self, replica: Replica) -> float:
        return self._of_replica[replica.id] / replica.slots

    def _width(self, adapter: str, replicas: Sequence[Replica], now: float) -> int:
        share = max(1, min((each.slots for each in replicas), default=1) // EASE)
        needed = 1 + self._of_adapter[adapter] // share
        spread = self._spreads.get(adapter)
        if needed == 1 and spread is None:
            return 1
        if spread is None or needed >= spread.width or now >= spread.until:
            spread = self._spreads[adapter] = _Spread(needed, now + COOLING_SECONDS)
        return spread.width

    def _forget(self, now: float) -> None:
        """Keep no more than what matters still."""
        self._spreads = {
            adapter: spread
            for adapter, spread in self._spreads.items()
            if now < spread.until or adapter in self._of_adapter
        }
        self._failed_at = {
            each: at for each, at in self._failed_at.items() if now - at < FAILED_SECONDS
        }


def _weight(adapter: str, replica: Replica) -> bytes:
    return blake2b(f"{adapter} {replica.id}".encode(), digest_size=8).digest()


def _less(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
