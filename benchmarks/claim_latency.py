"""From the client's POST of a job to its claim by a worker, on an idle running stack.

    TAILOR_BASE_URL=http://127.0.0.1:8000/v1 TAILOR_API_KEY=tl-… python -m benchmarks.claim_latency

The client's clock runs from before the request to the claim event's arrival over the events route,
asked for every few milliseconds; the API and the client share no clock. Each job is cancelled and
waited for before the next one, so that the worker is idle again.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

POLL_SECONDS = 0.005
TIMEOUT_SECONDS = 120
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True)
class Stack:
    """A running stack as one tenant sees it."""

    http: httpx.Client

    def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send one request; raise for an error."""
        answer = self.http.request(method, path, **options)
        answer.raise_for_status()
        return dict(answer.json())

    def upload(self) -> str:
        """Upload a training file."""
        rows = [{"prompt": f"Part {i}?", "completion": f"Shelf {i}."} for i in range(64)]
        body = "".join(json.dumps(row) + "\n" for row in rows)
        form = {"files": {"file": ("claim.jsonl", body)}, "data": {"purpose": "fine-tune"}}
        return str(self.ask("POST", "/files", **form)["id"])

    def is_claimed(self, job: str) -> bool:
        """Say whether a worker has taken the job."""
        events = self.ask("GET", f"/fine_tuning/jobs/{job}/events", params={"limit": 20})
        return any(event["state"] == "starting" for event in events["data"])

    def has_ended(self, job: str) -> bool:
        """Say whether the job is over."""
        return self.ask("GET", f"/fine_tuning/jobs/{job}")["status"] in ENDED


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--base-url", default=os.environ.get("TAILOR_BASE_URL"))
    parser.add_argument("--api-key", default=os.environ.get("TAILOR_API_KEY"))
    options = parser.parse_args()
    headers = {"authorization": f"Bearer {options.api_key}"}
    with httpx.Client(base_url=options.base_url, headers=headers, timeout=30) as http:
        stack = Stack(http)
        training_file = stack.upload()
        seconds = [measure(stack, options.model, training_file) for _ in range(options.jobs)]
        stack.ask("DELETE", f"/files/{training_file}")
    print_table(seconds)


def measure(stack: Stack, model: str, training_file: str) -> float:
    """Create one job, wait for its claim, cancel it, wait for its end."""
    began = time.perf_counter()
    asked = {"model": model, "training_file": training_file}
    job = str(stack.ask("POST", "/fine_tuning/jobs", json=asked)["id"])
    wait_for(lambda: stack.is_claimed(job), POLL_SECONDS)
    latency = time.perf_counter() - began
    stack.ask("POST", f"/fine_tuning/jobs/{job}/cancel")
    wait_for(lambda: stack.has_ended(job), 0.2)
    return latency


def wait_for(condition: Callable[[], bool], pause: float) -> None:
    """Return when ``condition`` holds."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up after {TIMEOUT_SECONDS} s")
        time.sleep(pause)


def print_table(seconds: list[float]) -> None:
    """Print median, p95 and the extremes in milliseconds."""
    ordered = sorted(seconds)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    figures = {
        "jobs": len(ordered),
        "median_ms": round(statistics.median(ordered) * 1000, 1),
        "p95_ms": round(p95 * 1000, 1),
        "least_ms": round(ordered[0] * 1000, 1),
        "greatest_ms": round(ordered[-1] * 1000, 1),
    }
    print("POST to claim event:", json.dumps(figures))


if __name__ == "__main__":
    main()
