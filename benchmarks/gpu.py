"""Training on an NVIDIA GPU: a base model of a billion random weights, added, proven and trained.

    make gpu

The weights are random and of Llama's shape, because no hub need be reachable; their losses mean
nothing, their speed does. ``tailor model add`` proves the model on this device, in trainer and
vLLM. Then one job by each of Tailor's paths, and by TRL where ``--peer`` names its environment
(benchmarks/training.py says how it is made). Tokens a second count the rows' tokens, from loading
the base model to the written adapter. ``--small`` tries the program itself, on any machine.
"""

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.training import ROOT, VALIDATION_ROWS, Result, Task, run, write
from examples.datasets import changelog
from shared.catalog import load_catalog
from shared.chat.encoder import ChatEncoder

DEMO_BASE = "smollm2-135m-instruct"
NAME = "random-llama-1b"
LARGE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
"""1.07 billion weights, with the demo base's vocabulary."""
SMALL = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SIDE = 8192
"""Rows and columns of the matrices whose product is timed."""


def main() -> None:
    """Print what was measured as rows of Markdown, with the day and the device."""
    asked = _arguments()
    if not (torch.cuda.is_available() or asked.small):
        sys.exit("make gpu: torch finds no NVIDIA GPU here.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    title = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models_dir = folder / "models"
        shape = SMALL if asked.small else LARGE
        weights = build(folder / NAME, asked.models_dir / DEMO_BASE, shape)
        command = ["model", "add", str(folder / NAME), "--models-dir", str(models_dir)]
        subprocess.run(
            [sys.executable, "-m", "cli.main", *command],
            cwd=ROOT,
            env=os.environ | {"TAILOR_INFERENCE_DEVICE": device.type},
            check=True,
        )
        entry = load_catalog(models_dir).get(NAME)
        rows = training_rows(folder, asked.rows)
        encoder = ChatEncoder(entry.folder(models_dir))
        tokens = sum(len(encoder.encode(row["messages"]).token_ids) for row in rows)
        day = datetime.datetime.now(tz=datetime.UTC).date()
        print(f"{day}, {title}: {weights / 1e9:.2f} billion weights; a product of two matrices of ")
        print(f"{SIDE} by {SIDE} in bf16 runs at {matmul_rate(device) / 1e12:.1f} Tflop/s")
        print("| layers | arm | tokens a second | seconds | processor s | peak memory |")
        print("|---|---|---|---|---|---|")
        layers = entry.architecture.layers
        for first in (layers - layers // 3, 0):
            task = Task(
                arm="",
                base_dir=str(entry.folder(models_dir).resolve()),
                train_rows=write(folder / "train.jsonl", rows),
                validation_rows=write(folder / "validation.jsonl", rows[:VALIDATION_ROWS]),
                output_dir="",
                first_layer=first,
                last_layer=layers - 1,
                epochs=asked.epochs,
                batch_size=16,
            )
            for arm in asked.arms:
                own = {"arm": arm, "output_dir": str(folder / f"{arm}-{first}")}
                took = run(dataclasses.replace(task, **own), asked.peer, [])
                line = took
                if isinstance(took, Result):
                    rate = tokens * asked.epochs / took.seconds
                    line = (
                        f"{rate:,.0f} | {took.seconds:.1f} | {took.processor_seconds:.1f} "
                        f"| {took.peak_gb:.2f} GB"
                    )
                print(f"| {first} to {layers - 1} | {arm} | {line} |", flush=True)


def build(folder: Path, demo_base: Path, shape: dict[str, int]) -> int:
    """Write a random Llama with the demo base's tokenizer; return how many weights it has."""
    torch.manual_seed(0)
    own = json.loads((demo_base / "config.json").read_text())
    kept = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    config = AutoConfig.for_model(
        "llama",
        **{key: own[key] for key in kept if key in own},
        **shape,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for path in demo_base.iterdir():
        if path.name.startswith(("tokenizer", "special", "chat_template", "vocab", "merges")):
            (folder / path.name).write_bytes(path.read_bytes())
    return sum(weights.numel() for weights in model.parameters())


def training_rows(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return rows of 191 to 379 of the demo base's tokens."""
    lines = changelog(folder).training_file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:number]]


def matmul_rate(device: torch.device) -> float:
    """Return operations a second of a large bf16 product, the best of five."""
    side = SIDE if device.type == "cuda" else SIDE // 8
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        float((left @ right)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--arms", nargs="+", default=["fused", "generic"])
    parser.add_argument("--peer", type=Path, default=ROOT / ".peers/trl/bin/python")
    parser.add_argument("--models-dir", type=Path, default=ROOT / ".models")
    parser.add_argument("--small", action="store_true", help="a tiny model, without a GPU too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
