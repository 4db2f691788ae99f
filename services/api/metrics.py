"""Prometheus metrics of one API process: by route and kind, never by tenant."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest


class Metrics:
    """The counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tailor_http_requests",
            "HTTP requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "tailor_http_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ["method", "route"],
            registry=self.registry,
        )
        self.completions = Counter(
            "tailor_completions",
            "Completions by kind of model and outcome.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "tailor_tokens",
            "Tokens read and written by completions.",
            ["kind", "direction"],
            registry=self.registry,
        )
        self.jobs = Counter(
            "tailor_jobs_created", "Fine-tuning jobs accepted.", registry=self.registry
        )

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)
