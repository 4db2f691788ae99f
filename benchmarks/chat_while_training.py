"""Chat and training on the same cores: each alone, then both together, on an idle running stack.

    export TAILOR_BASE_URL=http://127.0.0.1:8000/v1 TAILOR_API_KEY=tl-…
    python -m benchmarks.chat_while_training

One job trains on the example company's rows. Its speed is read from its own progress over a window
without chats and over a window in which one chat follows the other; the chats' first tokens are
timed by the official client, before the job and in the second window. Progress rides along with the
heartbeats, so start the stack with TAILOR_HEARTBEAT_SECONDS=0.5.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import openai

from examples.datasets import company

WINDOW_STEPS = 80
QUESTION = "What does a warranty cover, in one sentence?"


@dataclass(frozen=True)
class Bench:
    """A running stack as one tenant sees it."""

    client: openai.OpenAI
    model: str

    def chat(self) -> tuple[float, float]:
        """Ask once; return seconds to the first token and tokens per second after it."""
        began = time.perf_counter()
        chunks = self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=32,
            temperature=0,
            stream=True,
        )
        arrivals = [
            time.perf_counter() - began
            for chunk in chunks
            if chunk.choices and chunk.choices[0].delta.content
        ]
        return arrivals[0], (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])

    def start_job(self) -> str:
        """Upload the example company's rows and start to train on them."""
        file = self.client.files.create(
            file=("company.jsonl", company().training_file.read_bytes()), purpose="fine-tune"
        )
        return self.client.fine_tuning.jobs.create(
            model=self.model, training_file=file.id, seed=1
        ).id

    def step(self, job: str) -> int:
        """Return how many optimiser steps are done."""
        now = self.client.fine_tuning.jobs.retrieve(job)
        if now.status in {"failed", "cancelled", "succeeded"}:
            raise SystemExit(f"the job is {now.status}: too short for this measurement")
        progress = (now.model_extra or {}).get("progress") or {}
        return int(progress.get("step", 0))

    def wait_for_step(self, job: str, step: int) -> None:
        """Return when the job has done ``step`` steps."""
        while self.step(job) < step:
            time.sleep(0.1)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chats", type=int, default=10)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--base-url", default=os.environ.get("TAILOR_BASE_URL"))
    parser.add_argument("--api-key", default=os.environ.get("TAILOR_API_KEY"))
    options = parser.parse_args()
    with openai.OpenAI(base_url=options.base_url, api_key=options.api_key) as client:
        bench = Bench(client, options.model)
        bench.chat()  # the first one warms the engine up
        alone = [bench.chat() for _ in range(options.chats)]
        job = bench.start_job()
        try:
            training_alone = steps_per_second(bench, job)
            together, training_together = chats_during(bench, job, options.chats)
        finally:
            client.fine_tuning.jobs.cancel(job)
    print_table(alone, together, training_alone, training_together)


def steps_per_second(bench: Bench, job: str) -> float:
    """Return the job's speed over a window that begins once it trains."""
    bench.wait_for_step(job, 5)
    first, began = bench.step(job), time.perf_counter()
    bench.wait_for_step(job, first + WINDOW_STEPS)
    return (bench.step(job) - first) / (time.perf_counter() - began)


def chats_during(bench: Bench, job: str, chats: int) -> tuple[list[tuple[float, float]], float]:
    """Chat without a pause until ``chats`` are answered and the window is long enough."""
    first, began = bench.step(job), time.perf_counter()
    figures: list[tuple[float, float]] = []
    while len(figures) < chats or bench.step(job) < first + WINDOW_STEPS:
        figures.append(bench.chat())
    return figures, (bench.step(job) - first) / (time.perf_counter() - began)


def print_table(
    alone: list[tuple[float, float]],
    together: list[tuple[float, float]],
    training_alone: float,
    training_together: float,
) -> None:
    """Print the four figures side by side."""
    print(f"{'':34}{'alone':>10}{'together':>10}{'ratio':>8}")
    rows: list[tuple[str, int, Callable[[Iterable[float]], float]]] = [
        ("first token, median s", 0, statistics.median),
        ("first token, greatest s", 0, max),
        ("tokens/s of one chat, median", 1, statistics.median),
    ]
    for title, column, pick in rows:
        one, both = (pick(row[column] for row in part) for part in (alone, together))
        print(f"{title:34}{one:10.2f}{both:10.2f}{both / one:8.2f}")
    ratio = training_together / training_alone
    print(f"{'training, steps/s':34}{training_alone:10.2f}{training_together:10.2f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
