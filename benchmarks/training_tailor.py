"""An arm of benchmarks.training: the warm trainer in this process, on the path asked for."""

import json
import shutil
import sys
import time
from pathlib import Path

import torch

from services.worker.spec import DoneMessage, TrainerMessage, TrainSpec
from services.worker.training import fused
from services.worker.training.signals import Signals
from services.worker.training.warm_trainer import WarmTrainer
from shared.catalog import Catalog, load_catalog
from shared.jobs.hyperparameters import Hyperparameters


def main() -> None:
    """Train the task in the first argument; write its last epoch's adapter and what it took."""
    task = json.loads(sys.argv[1])
    if task["arm"] == "generic":
        fused.FAMILIES = frozenset()
    base_dir = Path(task["base_dir"])
    entry = load_catalog(base_dir.parent).get(base_dir.name)
    block = {"first_trained_layer": task["first_layer"], "last_trained_layer": task["last_layer"]}
    profile = entry.profile.model_copy(update=block)
    catalog = Catalog([entry.model_copy(update={"profile": profile})])
    output = Path(task["output_dir"])
    spec = TrainSpec(
        job_id="ftjob-benchmark",
        attempt=1,
        base_model=entry.name,
        base_dir=base_dir,
        base_sha256="0" * 64,
        train_rows=Path(task["train_rows"]),
        validation_rows=Path(task["validation_rows"]),
        attempt_dir=output / "attempt",
        resume_from=(),
        hyperparameters=Hyperparameters(
            n_epochs=task["epochs"],
            batch_size=task["batch_size"],
            learning_rate_multiplier=1,
            learning_rate=task["learning_rate"],
            rank=task["rank"],
            alpha=task["alpha"],
            early_stopping_patience=1000,
        ),
        seed=task["seed"],
        checkpoint_seconds=3600,
        threads=task["threads"],
    )
    messages: list[TrainerMessage] = []
    trainer = WarmTrainer(catalog, Signals(), messages.append)
    began, processor = time.perf_counter(), time.process_time()
    trainer.run(spec)
    took = {
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - processor,
    }
    if torch.cuda.is_available():
        took["gpu_peak_gb"] = torch.cuda.max_memory_allocated() / 2**30
    done = messages[-1]
    assert isinstance(done, DoneMessage)
    if done.forgetting:
        took |= done.forgetting.model_dump()
    shutil.copytree(max(done.checkpoints, key=lambda kept: kept.step).path, output / "adapter")
    print(json.dumps(took))


if __name__ == "__main__":
    main()
