"""Orders to the one who works on a comparison: the lease gives them, from its threads."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from services.worker.lease import Order

LISTENING_SECONDS = 0.1
T = TypeVar("T")


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

    def listening(self, action: Callable[[], T]) -> T:
        """Return what ``action`` returns; an order abandons it, in its thread."""
        answer: Future[T] = Future()

        def act() -> None:
            try:
                answer.set_result(action())
            except Exception as error:  # noqa: BLE001  it is raised again where the answer is read
                answer.set_exception(error)

        # A daemon, unlike an executor's threads: what is abandoned keeps no worker from exiting.
        threading.Thread(target=act, name="listening", daemon=True).start()
        while not answer.done():
            self.check()
            wait([answer], LISTENING_SECONDS)
        return answer.result()
