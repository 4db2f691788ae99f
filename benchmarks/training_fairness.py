"""How long one tenant's job waits behind another tenant's queue, with one worker.

    python -m benchmarks.training_fairness [--jobs 50]

Starts a stack. Tenant 1 queues its jobs of ten rows; when the first has begun, tenant 2 queues one.
Prints when it was claimed and how many of tenant 1's jobs had ended by then. Nothing in it depends
on how the queue works, so older versions can be measured with the same file.
"""

import argparse
import json
import time
from collections.abc import Iterator

import openai

from tests.running_stack import RunningStack

MODEL = "smollm2-135m-instruct"
PATIENCE_SECONDS = 400


def rows() -> bytes:
    """Return a training file of ten rows."""
    made = ({"prompt": f"Part {i}?", "completion": f"Shelf {i}."} for i in range(10))
    return "\n".join(map(json.dumps, made)).encode()


def queue(client: openai.OpenAI, count: int) -> list[str]:
    """Queue so many jobs of one epoch."""
    file_id = client.files.create(file=("rows.jsonl", rows()), purpose="fine-tune").id
    supervised = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}
    return [
        client.fine_tuning.jobs.create(
            model=MODEL,
            training_file=file_id,
            method=supervised,  # type: ignore[arg-type]
            seed=seed,
        ).id
        for seed in range(count)
    ]


def statuses(client: openai.OpenAI) -> dict[str, str]:
    """Return the status of every job by its id."""
    return {job.id: job.status for job in client.fine_tuning.jobs.list(limit=100)}


def until(condition: Iterator[bool]) -> None:
    """Return when ``condition`` yields True; give up after PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for holds in condition:
        if holds or time.monotonic() > deadline:
            return
        time.sleep(0.2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=50)
    jobs = parser.parse_args().jobs
    stack = RunningStack()
    try:
        stack.up()
        flooding, other = stack.tenant("flooding").client, stack.tenant("other").client
        mine = set(queue(flooding, jobs))
        until("running" in statuses(flooding).values() for _ in iter(int, 1))
        began = time.monotonic()
        [theirs] = queue(other, 1)
        waiting = {"validating_files", "queued"}
        until(statuses(other)[theirs] not in waiting for _ in iter(int, 1))
        claimed = time.monotonic() - began
        ended = sum(statuses(flooding)[job] == "succeeded" for job in mine)
        until(statuses(other)[theirs] == "succeeded" for _ in iter(int, 1))
        done = time.monotonic() - began
        print("| tenant 1's jobs | of them ended before the claim | claim | model |")
        print("|---|---|---|---|")
        print(f"| {jobs} | {ended} | {claimed:.1f} s | {done:.1f} s |")
    finally:
        stack.remove()


if __name__ == "__main__":
    main()
