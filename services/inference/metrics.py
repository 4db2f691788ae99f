"""What the guard and the resolver tell Prometheus, in vLLM's own ``/metrics``.

vLLM shows whatever its process has put into prometheus_client's registry. It makes plugin and
middleware itself, apart from each other: they meet here.
"""

from collections import Counter as Count
from collections.abc import Iterator

from prometheus_client import REGISTRY, Counter, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.inference.admission import Admission

SYSTEM = "system"
"""The tenant of requests without one: the canary, and the check before a model is published."""

ADAPTER_LOADS = Counter(
    "tailor_adapter_loads", "Adapters looked for at their first use.", ["outcome"]
)
for outcome in ("found", "refused", "damaged"):
    ADAPTER_LOADS.labels(outcome)
WAITS = Histogram(
    "tailor_inference_wait_seconds",
    "Time at the door, of requests that got their turn.",
    ["need"],
    buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
"""``need``: a place for the adapter, or a slot alone."""
for need in ("place", "slot"):
    WAITS.labels(need)


class Waiting(Collector):
    """Requests at the door by class of tenant; by tenant only where a setting allows it."""

    _policy: Admission | None = None
    _tenant_names = False

    def watch(self, policy: Admission, *, tenant_names: bool) -> None:
        """Count from now on the requests that wait by ``policy``."""
        self._policy = policy
        self._tenant_names = tenant_names

    def collect(self) -> Iterator[Metric]:
        """Count anew for each scrape."""
        waiting = GaugeMetricFamily(
            "tailor_inference_waiting",
            "Requests at the door, by class of tenant.",
            labels=["class", "tenant"],
        )
        counts = Count({("system", ""): 0, ("idle", ""): 0, ("busy", ""): 0})
        if self._policy is not None:
            for tenant, number in self._policy.waiting().items():
                kind = _class_of(tenant, self._policy.held(tenant))
                counts[kind, tenant if self._tenant_names else ""] += number
        for labels, number in counts.items():
            waiting.add_metric(labels, number)
        yield waiting


WAITING = Waiting()
REGISTRY.register(WAITING)


def _class_of(tenant: str, held: int) -> str:
    """Return ``idle`` where nothing of the tenant runs, so that it is next; or ``busy``."""
    if tenant == SYSTEM:
        return "system"
    return "busy" if held else "idle"
