"""One small job trained by the trainers of several checkouts: are the adapters the same bits?

    git worktree add ../before COMMIT
    python -m benchmarks.same_bits ../before .

Each checkout's trainer is a process of its own that speaks the protocol of services/worker/spec.py,
on the real base model in bf16. Printed for each: SHA-256 of the adapter's tensors (names, types,
shapes, bytes; not the file, whose header may be laid out otherwise) and of every step's figures.
Ends with 1 if any differs. The validation rows are a file, so how rows are held out has no say.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors import safe_open

from shared.catalog import load_catalog

BASE = "smollm2-135m-instruct"
ROOT = Path(__file__).parents[1]
SYSTEM = "You answer questions about the kilns that we make."
TRAIN_ROWS, VALIDATION_ROWS = 30, 4


def write_rows(folder: Path) -> tuple[Path, Path]:
    """Write rows of the example company; every other one begins with a system message."""
    lines = (ROOT / "examples/company/train.jsonl").read_text(encoding="utf-8").splitlines()
    lines = lines[:: len(lines) // (TRAIN_ROWS + VALIDATION_ROWS)]
    rows = []
    for number, line in enumerate(lines, 1):
        messages = json.loads(line)["messages"]
        if number % 2:
            messages.insert(0, {"role": "system", "content": SYSTEM})
        rows.append(json.dumps({"line": number, "messages": messages}, ensure_ascii=False) + "\n")
    train, validation = folder / "train.jsonl", folder / "validation.jsonl"
    train.write_text("".join(rows[:TRAIN_ROWS]), encoding="utf-8")
    validation.write_text("".join(rows[TRAIN_ROWS:]), encoding="utf-8")
    return train, validation


def specification(folder: Path, base_dir: Path, threads: int) -> dict[str, Any]:
    """Return a job's specification with the fields that every version has known."""
    train, validation = write_rows(folder)
    return {
        "job_id": "ftjob-same-bits",
        "attempt": 1,
        "base_model": BASE,
        "base_dir": str(base_dir),
        "base_sha256": load_catalog().get(BASE).base_sha256,
        "train_rows": str(train),
        "validation_rows": str(validation),
        "attempt_dir": str(folder / "attempt"),
        "resume_from": [],
        "hyperparameters": {
            "n_epochs": 3,
            "batch_size": 4,
            "learning_rate_multiplier": 1,
            "learning_rate": 2e-3,
            "rank": 16,
            "alpha": 32,
            "early_stopping_patience": 50,
        },
        "seed": 7,
        "micro_batch_divisor": 16,  # so small that a step has several micro-batches
        "checkpoint_seconds": 3600,
        "threads": threads,
    }


def trained(checkout: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Let the trainer of ``checkout`` train ``spec``; return its last message."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.worker.training", "--parent", str(os.getpid())],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    with process, process.stdin:
        print(json.dumps(spec), file=process.stdin, flush=True)
        for line in process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message["kind"] == "done":
                return message
            if message["kind"] == "error":
                raise SystemExit(f"{checkout}: {message['message']}")
    raise SystemExit(f"{checkout}: the trainer has ended")


def tensors_sha256(folder: Path) -> str:
    """Hash the tensors of an adapter in the order of their names."""
    digest = hashlib.sha256()
    with safe_open(folder / "adapter_model.safetensors", "np") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()


def commit(checkout: Path) -> str:
    """Name what ``checkout`` holds, marked where files differ from the commit."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    return subprocess.check_output(command, cwd=checkout, text=True).strip()


def main() -> None:
    """Train everywhere and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--models", type=Path, default=ROOT / ".models")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    base_dir = load_catalog().get(BASE).folder(arguments.models.resolve())
    print("| commit | steps | adapter's tensors (SHA-256) | figures of all steps (SHA-256) |")
    print("|---|---|---|---|")
    seen = set()
    for checkout in arguments.checkouts:
        with tempfile.TemporaryDirectory() as folder:
            spec = specification(Path(folder), base_dir, arguments.threads)
            done = trained(checkout.resolve(), spec)
            tensors = tensors_sha256(Path(done["adapter_dir"]))
        figures = hashlib.sha256(json.dumps(done["history"]).encode()).hexdigest()
        seen.add((tensors, figures))
        print(f"| `{commit(checkout)}` | {done['step']} | `{tensors}` | `{figures}` |", flush=True)
    if len(seen) > 1:
        raise SystemExit("not the same bits")


if __name__ == "__main__":
    main()
