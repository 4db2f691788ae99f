"""One training job by Tailor's two paths and by TRL, on the same rows, layers, rank and steps.

    python -m benchmarks.training --rows 96 --epochs 4 --peer .peers/trl/bin/python

The rows are Debian changelog entries to be turned into JSON (191 to 379 tokens). Every arm is a
process of its own that loads the base model, trains and writes an adapter; its time is from the
first to the last of these, imports left out. Each adapter's loss on rows that no arm has seen is
then computed by PEFT and transformers. Nothing else should run. The peer's environment is made by

    python3.11 -m venv .peers/trl
    .peers/trl/bin/pip install --no-deps torch==…  (as in constraints.txt)
    .peers/trl/bin/pip install -c constraints.txt trl==1.16.0 transformers peft
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from examples.datasets import changelog
from shared.catalog import load_catalog
from shared.chat.encoder import ChatEncoder

ROOT = Path(__file__).parents[1]
BASE = "smollm2-135m-instruct"
ARMS = ("fused", "generic", "padding", "packing", "padding-free")
"""The first two are Tailor's, the others TRL's."""
HELD_OUT_ROWS = 32
VALIDATION_ROWS = 8


@dataclass(frozen=True)
class Task:
    """What every arm does; passed to its process as JSON."""

    arm: str
    base_dir: str
    train_rows: str
    validation_rows: str
    output_dir: str
    first_layer: int
    last_layer: int
    epochs: int
    batch_size: int = 8
    learning_rate: float = 1e-3
    rank: int = 16
    alpha: int = 32
    threads: int = 2
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """What an arm took."""

    seconds: float
    processor_seconds: float
    peak_gb: float
    """Of the process, or of the GPU where there is one."""
    loss: float
    """On the held-out rows; not a number where there are none."""

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} | {self.processor_seconds:.1f} "
            f"| {self.peak_gb:.2f} GB | {self.loss:.4f}"
        )


def trained(task: Task) -> dict[str, Any]:
    """Let our own arm train, and return what it says of it; for benchmarks.layers."""
    done = subprocess.run(
        [sys.executable, "benchmarks/training_tailor.py", json.dumps(asdict(task))],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(task.threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def run(task: Task, peer: Path, held_out: list[dict[str, Any]]) -> Result | str:
    """Let one arm train; return what it took, or why it did not."""
    ours = task.arm in {"fused", "generic"}
    script = "benchmarks/training_tailor.py" if ours else "benchmarks/training_trl.py"
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable if ours else str(peer), script, json.dumps(asdict(task))],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(task.threads)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout
        with process.stdout as answers:
            said = answers.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if status:
            errors.seek(0)
            return errors.read().strip().splitlines()[-1][:100]
    took = json.loads(said.splitlines()[-1])
    return Result(
        seconds=took["seconds"],
        processor_seconds=took["processor_seconds"],
        peak_gb=took.get("gpu_peak_gb") or usage.ru_maxrss / 2**20,
        loss=loss(Path(task.base_dir), Path(task.output_dir) / "adapter", held_out),
    )


@torch.no_grad()
def loss(base_dir: Path, adapter: Path, rows: list[dict[str, Any]]) -> float:
    """Mean loss per answer token, by PEFT and transformers."""
    encoder = ChatEncoder(base_dir)
    base: Any = AutoModelForCausalLM.from_pretrained(base_dir, dtype="auto")
    model = PeftModel.from_pretrained(base, str(adapter))
    total, tokens = 0.0, 0
    for row in rows:
        encoded = encoder.encode(row["messages"])
        token_ids = torch.tensor(encoded.token_ids)
        answers = torch.tensor(encoded.answers)
        logprobs = model(token_ids[None]).logits[0, answers - 1].float().log_softmax(-1)
        total -= float(logprobs.gather(1, token_ids[answers][:, None]).sum())
        tokens += len(answers)
    return total / tokens if rows else math.nan


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write rows as the trainer reads them, and return where."""
    lines = [json.dumps({"line": n, "messages": r["messages"]}) for n, r in enumerate(rows, 1)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--first-layers", type=int, nargs="+", default=[20, 0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--peer", type=Path, default=ROOT / ".peers/trl/bin/python")
    parser.add_argument("--models-dir", type=Path, default=ROOT / ".models")
    return parser.parse_args()


def main() -> None:
    """Print a table in Markdown, a row as soon as it is known."""
    arguments = _arguments()
    entry = load_catalog().get(BASE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = changelog(folder)
        rows, held_out = (
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for path in (data.training_file, data.held_out_file)
        )
        train = write(folder / "train.jsonl", rows[: arguments.rows])
        validation = write(folder / "validation.jsonl", rows[-VALIDATION_ROWS:])
        print("| trained layers | arm | seconds | processor s | peak memory | held-out loss |")
        print("|---|---|---|---|---|---|")
        for first in arguments.first_layers:
            for arm in arguments.arms:
                task = Task(
                    arm=arm,
                    base_dir=str(entry.folder(arguments.models_dir.resolve())),
                    train_rows=train,
                    validation_rows=validation,
                    output_dir=str(folder / f"{arm}-{first}"),
                    first_layer=first,
                    last_layer=entry.architecture.layers - 1,
                    epochs=arguments.epochs,
                )
                took = run(task, arguments.peer, held_out[:HELD_OUT_ROWS])
                print(f"| {first} to {task.last_layer} | {arm} | {took} |", flush=True)


if __name__ == "__main__":
    main()
