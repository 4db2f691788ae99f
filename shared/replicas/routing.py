from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True)
class Replica:
    id: str
    url: str
    places: int
    slots: int


class Router:
    def order(self, adapter: str | None, replicas: Sequence[Replica], now: float) -> list[Replica]:
        return sorted(
            replicas,
            key=lambda r: blake2b(f"{adapter} {r.id}".encode(), digest_size=8).digest(),
        )

    def began(self, replica_id: str, adapter: str | None, now: float) -> None: ...
    def ended(self, replica_id: str, adapter: str | None, now: float) -> None: ...
    def failed(self, replica_id: str, now: float) -> None: ...
