"""Which adapters' requests may run now: at most ``max_loras`` adapters, oldest waiting first.

vLLM skips the requests of every further adapter while ``max_loras`` are running, so one busy tenant
could starve the rest. Here an adapter takes a place with its first request and gives it back with
its last; while others wait, a place held longer than a time slice admits nothing new. Plain data,
the clock is passed in.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ticket:
    """One request for one adapter; numbers grow with arrival."""

    number: int
    adapter: str


@dataclass
class _Place:
    since: float
    running: set[Ticket] = field(default_factory=set)


class Admission:
    """The queue at the door and the places behind it."""

    def __init__(self, max_loras: int, slice_seconds: float) -> None:
        self.max_loras = max_loras
        self.slice_seconds = slice_seconds
        self._waiting: dict[int, Ticket] = {}
        self._places: dict[str, _Place] = {}
        self._arrivals = 0

    def arrive(self, adapter: str) -> Ticket:
        """Join the end of the queue."""
        self._arrivals += 1
        ticket = Ticket(self._arrivals, adapter)
        self._waiting[ticket.number] = ticket
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Forget a request: finished, aborted, or tired of waiting."""
        self._waiting.pop(ticket.number, None)
        place = self._places.get(ticket.adapter)
        if place is not None:
            place.running.discard(ticket)
            if not place.running:
                del self._places[ticket.adapter]

    def admit(self, now: float) -> list[Ticket]:
        """Let in, oldest first, whoever may run at ``now``; to be called after every change."""
        admitted = [ticket for ticket in tuple(self._waiting.values()) if self._enter(ticket, now)]
        for ticket in admitted:
            del self._waiting[ticket.number]
        return admitted

    def next_adapter(self) -> str | None:
        """Return the adapter that gets the next free place, so that it can be loaded beforehand."""
        return next(iter(self._outside()), None)

    @property
    def waiting(self) -> tuple[Ticket, ...]:
        """Requests in the queue, oldest first."""
        return tuple(self._waiting.values())

    def _enter(self, ticket: Ticket, now: float) -> bool:
        place = self._places.get(ticket.adapter)
        if place is None:
            if len(self._places) == self.max_loras:
                return False
            place = self._places[ticket.adapter] = _Place(since=now)
        elif ticket.adapter in self._closing(now):
            return False
        place.running.add(ticket)
        return True

    def _outside(self) -> list[str]:
        """Adapters without a place, in the order of their oldest waiting request."""
        return list(
            dict.fromkeys(
                t.adapter for t in self._waiting.values() if t.adapter not in self._places
            )
        )

    def _closing(self, now: float) -> list[str]:
        """Places past their slice, longest held first, no more than there are adapters outside."""
        spent = [a for a, p in self._places.items() if now - p.since >= self.slice_seconds]
        spent.sort(key=lambda adapter: self._places[adapter].since)
        return spent[: len(self._outside())]
