"""What a worker tells Prometheus of its own attempts; the scheduler tells of jobs and queues."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.worker.failures import Cause
from services.worker.spec import ProgressMessage


class Metrics:
    """The figures of one Celery child, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leases_lost = Counter(
            "tailor_leases_lost",
            "Attempts that ended because the job belonged to another.",
            registry=self.registry,
        )
        self.failures = Counter(
            "tailor_attempts_failed",
            "Attempts that ended badly, whatever followed.",
            ["cause"],
            registry=self.registry,
        )
        for cause in Cause:
            self.failures.labels(cause)
        self.tokens_per_second = Gauge(
            "tailor_training_tokens_per_second",
            "Of the step trained last; 0 while nothing is trained.",
            registry=self.registry,
        )

    @contextmanager
    def training(self) -> Iterator[None]:
        """Tell no speed any more when the training has ended."""
        try:
            yield
        finally:
            self.tokens_per_second.set(0)

    def hear(self, message: object) -> None:
        """Take the speed from what the trainer tells."""
        if isinstance(message, ProgressMessage):
            self.tokens_per_second.set(message.tokens_per_second)
