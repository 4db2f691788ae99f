"""Which requests the engine runs now: fair shares by tenant, of two things that are scarce.

* **Slots**: what the engine computes at once. A request takes one for each sequence, and one for
  each kilobyte of prompt.
* **Places**: adapters that run at once. vLLM skips the requests of every further one. An adapter
  takes a place with its first request and gives it back with its last.

Two rules:

1. *Whoever holds least is next*; among equals, who was served least. Each running sequence gets one
   token a step, so equal slots are equal tokens and no answer's length is guessed. Service is
   counted in slot-seconds, and a newcomer begins with the least of those who are there (Sheng et
   al., "Fairness in Serving Large Language Models", OSDI 2024).
2. *Nobody takes the last of it.* What runs cannot be interrupted, so room is kept for whoever comes
   next: what a tenant holds stays within a fixed ratio to what is left free (Choudhury and Hahne,
   "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). A tenant that holds
   nothing may always begin.

Plain data; the clock is passed in. A change costs one look at each tenant's first request.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ticket:
    """One request; numbers grow with arrival."""

    number: int
    tenant: str
    adapter: str | None
    """None for the base model, which needs no place."""
    slots: int


@dataclass
class Pool:
    """Something scarce, and how much of it each tenant holds."""

    free: int
    ratio: float
    """Of one tenant's holding to what is left free."""
    held: Counter[str] = field(default_factory=Counter)

    def entitled(self, tenant: str, amount: int) -> bool:
        """Say whether the tenant may have so much more, as soon as there is so much."""
        held = self.held[tenant]
        # With ratio r, a tenant that is alone stops at r/(1+r) = ``share`` of all; with a second it
        # stops earlier, because the other's holding is missing from what is free.
        return not held or held + amount <= self.ratio * (self.free - amount)

    def take(self, tenant: str, amount: int) -> None:
        """Give ``amount`` to the tenant; a negative one is given back."""
        self.held[tenant] += amount
        self.free -= amount
        if not self.held[tenant]:
            del self.held[tenant]


@dataclass
class _Place:
    owner: str
    since: float
    running: set[Ticket] = field(default_factory=set)


class Admission:
    """The queues at the door and what runs behind it."""

    def __init__(self, slots: int, places: int, share: float, slice_seconds: float) -> None:
        """Set up; ``share`` (below 1) of slots and places may go to a tenant that is alone."""
        self._slots = Pool(slots, share / (1 - share))
        self._room = Pool(places, share / (1 - share))
        self._most = slots
        self._slice_seconds = slice_seconds
        self._places: dict[str, _Place] = {}
        self._lanes: dict[tuple[str, str | None], dict[int, Ticket]] = {}
        """Waiting requests by tenant and model, oldest first."""
        self._running: dict[Ticket, float] = {}
        """Since when."""
        self._present: Counter[str] = Counter()
        self._served: dict[str, float] = {}
        """Slot-seconds of every tenant that is present."""
        self._arrivals = 0

    def arrive(self, tenant: str, adapter: str | None = None, slots: int = 1) -> Ticket:
        """Join the end of a queue. A request larger than the engine counts as all of it."""
        self._arrivals += 1
        ticket = Ticket(self._arrivals, tenant, adapter, min(max(slots, 1), self._most))
        self._lanes.setdefault((tenant, adapter), {})[ticket.number] = ticket
        if not self._present[tenant]:
            # Not zero: whoever comes back after a pause would be owed all the time it was away.
            self._served[tenant] = min(self._served.values(), default=0.0)
        self._present[tenant] += 1
        return ticket

    def leave(self, ticket: Ticket, now: float) -> None:
        """Forget a request: it has ended, was aborted, or is tired of waiting."""
        if ticket in self._running:
            self._release(ticket, now)
        else:
            self._unqueue(ticket)
        self._present[ticket.tenant] -= 1
        if not self._present[ticket.tenant]:
            del self._present[ticket.tenant], self._served[ticket.tenant]

    def admit(self, now: float) -> list[Ticket]:
        """Let in whoever may run at ``now``; to be called after every change."""
        admitted = []
        while self._lanes and self._slots.free > 0 and (ticket := self._next(now)):
            self._unqueue(ticket)
            self._enter(ticket, now)
            admitted.append(ticket)
        return admitted

    def next_adapter(self) -> str | None:
        """Return the adapter that gets the next free place, so that it can be loaded beforehand."""
        first = min(self._outside(), key=self._turn, default=None)
        return first.adapter if first is not None else None

    def present(self, tenant: str) -> int:
        """Return how many requests the tenant has here, waiting and running."""
        return self._present[tenant]

    def held(self, tenant: str) -> int:
        """Return how many slots the tenant's running requests take."""
        return self._slots.held[tenant]

    def _next(self, now: float) -> Ticket | None:
        # Three questions, in this order: is it within its tenant's share (of what there is, free or
        # not), does its adapter have or get a place, and whose turn is it? Only for the one whose
        # turn it is are the slots counted that are free now.
        closing = self._closing(now)
        entitled = (t for t in self._heads() if self._slots.entitled(t.tenant, t.slots))
        ready = (ticket for ticket in entitled if self._fits(ticket, closing))
        ticket = min(ready, key=self._turn, default=None)
        # A large request waits for enough slots at the head; those behind it would take them.
        return ticket if ticket is not None and ticket.slots <= self._slots.free else None

    def _heads(self) -> Iterator[Ticket]:
        """The first request of each queue."""
        return (next(iter(lane.values())) for lane in self._lanes.values())

    def _turn(self, ticket: Ticket) -> tuple[int, float, int]:
        # Slots held now, service so far, arrival: the least is next.
        return self._slots.held[ticket.tenant], self._served[ticket.tenant], ticket.number

    def _fits(self, ticket: Ticket, closing: set[str]) -> bool:
        if ticket.adapter is None:
            return True
        if ticket.adapter in self._places:
            return ticket.adapter not in closing
        return self._may_open(ticket.tenant)

    def _may_open(self, tenant: str) -> bool:
        return self._room.free > 0 and self._room.entitled(tenant, 1)

    def _outside(self) -> Iterator[Ticket]:
        """First requests for adapters without a place."""
        return (t for t in self._heads() if t.adapter is not None and t.adapter not in self._places)

    def _closing(self, now: float) -> set[str]:
        """Adapters that have used up their slice and must admit nobody new, so that they fall free.

        At most one for each adapter that waits for a place: of the tenant with the most places
        first, then the longest held. It must be the waiting tenant's own, or of one with more.
        """
        held, closing = self._room.held, set[str]()
        spent = [a for a, p in self._places.items() if now - p.since >= self._slice_seconds]
        spent.sort(key=lambda a: (-held[self._places[a].owner], self._places[a].since))
        for tenant in (ticket.tenant for ticket in self._outside()):
            if len(closing) == len(spent):
                break
            # Whoever may open a place now needs nobody's.
            for adapter in () if self._may_open(tenant) else spent:
                # Never of a tenant with as few: that would only turn the inequality round.
                owner = self._places[adapter].owner
                if adapter not in closing and (owner == tenant or held[owner] > held[tenant]):
                    closing.add(adapter)
                    break
        return closing

    def _unqueue(self, ticket: Ticket) -> None:
        lane = self._lanes[ticket.tenant, ticket.adapter]
        del lane[ticket.number]
        if not lane:
            del self._lanes[ticket.tenant, ticket.adapter]

    def _enter(self, ticket: Ticket, now: float) -> None:
        self._running[ticket] = now
        self._slots.take(ticket.tenant, ticket.slots)
        if ticket.adapter is None:
            return
        if ticket.adapter not in self._places:
            self._places[ticket.adapter] = _Place(ticket.tenant, since=now)
            self._room.take(ticket.tenant, 1)
        self._places[ticket.adapter].running.add(ticket)

    def _release(self, ticket: Ticket, now: float) -> None:
        self._served[ticket.tenant] += ticket.slots * (now - self._running.pop(ticket))
        self._slots.take(ticket.tenant, -ticket.slots)
        if ticket.adapter is not None:
            place = self._places[ticket.adapter]
            place.running.remove(ticket)
            if not place.running:
                self._room.take(place.owner, -1)
                del self._places[ticket.adapter]
