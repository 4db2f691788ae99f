"""A job of 100,000 rows (200 MB): the trainer's first steps, and the memory that they take.

The trainer runs alone, as the supervisor starts it. Printed as one JSON line: seconds until the
first step and the last, and the peak of anonymous memory beyond what the loaded base model takes.

    python -m benchmarks.big_job --rows 100000 --steps 50
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from services.worker.spec import ErrorMessage, TrainSpec, trainer_message
from shared.catalog import load_catalog
from shared.jobs.hyperparameters import Hyperparameters

BASE = "smollm2-135m-instruct"
WORDS = [
    "棚",
    "倉庫",
    "営業時間",
    "shelf",
    "order",
    "invoice",
    "return",
    "返品",
    "送料",
    "warranty",
    "part",
    "code",
    "office",
    "電話",
]
ROW_WORDS = 265
"""Make rows of about 2 kB."""
WATCH_SECONDS = 0.2


def write_rows(path: Path, rows: int) -> None:
    """Write normalised rows of about 2 kB, each with a short answer of its own."""
    draw = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, rows + 1):
            question = f"{number}: {' '.join(draw.choices(WORDS, k=ROW_WORDS))}"
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": f"Code {draw.randrange(10**6)}"},
            ]
            row = {"line": number, "messages": messages}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def anonymous_bytes(pid: int) -> int:
    """Memory of a process that no file backs."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


class Memory(threading.Thread):
    """Watches a process's anonymous memory until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.peak = 0

    def run(self) -> None:
        """Look again and again."""
        while True:
            try:
                self.peak = max(self.peak, anonymous_bytes(self._pid))
            except (OSError, StopIteration):
                return
            time.sleep(WATCH_SECONDS)


def spec_of(rows: Path, folder: Path, models: Path, job: str, threads: int) -> TrainSpec:
    """Say what to train in ``folder``."""
    entry = load_catalog().get(BASE)
    return TrainSpec(
        job_id=job,
        attempt=1,
        base_model=BASE,
        base_dir=entry.folder(models).absolute(),
        base_sha256=entry.base_sha256(models),
        train_rows=rows,
        validation_rows=None,
        attempt_dir=folder / job,
        resume_from=(),
        hyperparameters=Hyperparameters(
            n_epochs=3,
            batch_size=8,
            learning_rate_multiplier=1,
            learning_rate=1e-3,
            rank=16,
            alpha=32,
            early_stopping_patience=2,
        ),
        seed=1,
        checkpoint_seconds=120,
        threads=threads,
    )


class Trainer:
    """A trainer process with its clock and its memory watched."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "services.worker.training", "--parent", str(os.getpid())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.memory = Memory(self.process.pid)
        self.memory.start()

    def train(self, spec: TrainSpec, steps: int) -> dict[str, float]:
        """Train ``steps`` steps; return the seconds until the data was read, the first and last."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(spec.model_dump_json() + "\n")
        self.process.stdin.flush()
        began, last, found = time.monotonic(), time.monotonic(), {"longest_silence": 0.0}
        for line in self.process.stdout:
            message, now = trainer_message.validate_json(line), time.monotonic()
            found["longest_silence"] = max(found["longest_silence"], now - last)
            last = now
            if isinstance(message, ErrorMessage):
                raise SystemExit(message.message)
            if message.kind == "started":
                found["started"] = now - began
            if message.kind == "progress":
                found.setdefault("first_step", now - began)
                if message.metrics.step == min(steps, message.total_steps):
                    found["last_step"] = now - began
                    break
        return found

    def close(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--models", type=Path, default=Path(".models"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "small.jsonl", 16)
        write_rows(folder / "rows.jsonl", arguments.rows)
        figures: dict[str, object] = {"rows": arguments.rows}
        figures["file_mb"] = round((folder / "rows.jsonl").stat().st_size / 1e6)
        for label, rows in (("small", "small.jsonl"), ("big", "rows.jsonl")):
            trainer = Trainer()
            try:
                spec = spec_of(
                    folder / rows, folder, arguments.models, f"ftjob-{label}", arguments.threads
                )
                seconds = trainer.train(spec, arguments.steps)
            finally:
                trainer.close()
            figures[f"{label}_peak_anonymous_mb"] = round(trainer.memory.peak / 1e6)
            figures[label] = {key: round(value, 1) for key, value in seconds.items()}
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
