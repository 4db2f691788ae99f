"""Orders to the one who works on a comparison: the lease gives them, from its threads."""

from services.worker.lease import Order


class EndedByOrder(Exception):
    """The work must end now, by order."""

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self.order = order


class Orders:
    """The first order that came, if any did: it decides how the work ends."""

    def __init__(self) -> None:
        self._first: Order | None = None

    @property
    def given(self) -> bool:
        """Say whether the work must end."""
        return self._first is not None

    def give(self, order: Order) -> None:
        """Take an order; a lost lease overrides every other."""
        if self._first is None or order is Order.LOST:
            self._first = order

    def check(self) -> None:
        """Raise EndedByOrder where an order has come."""
        if self._first is not None:
            raise EndedByOrder(self._first)
