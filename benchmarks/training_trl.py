"""An arm of benchmarks.training: TRL's SFTTrainer; run by the peer's own Python, imports no Tailor.

As its users would have it fast on a CPU: bf16 weights, no gradient checkpointing, loss at answers
only, and rows of like length together, or packed, or without padding.
"""

import json
import sys
import time
from math import ceil
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

WARMUP_RATIO = 0.05
"""Tailor's default."""
PACK_TOKENS = 1024
ROWS_A_PACK = 4
"""Of 246 tokens on average: a step then has as many rows as the other arms' steps."""
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """Train the task in the first argument; write the adapter and print what it took."""
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    lines = Path(task["train_rows"]).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line)["messages"] for line in lines]
    steps = ceil(len(rows) / task["batch_size"]) * task["epochs"]
    packing = task["arm"] == "packing"
    began, processor = time.perf_counter(), time.process_time()
    model = AutoModelForCausalLM.from_pretrained(task["base_dir"], dtype=torch.bfloat16)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=task["output_dir"],
            num_train_epochs=task["epochs"],
            per_device_train_batch_size=task["batch_size"] // (ROWS_A_PACK if packing else 1),
            learning_rate=task["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=ceil(steps * WARMUP_RATIO),
            max_grad_norm=1.0,
            max_length=PACK_TOKENS if packing else None,
            bf16=True,
            use_cpu=True,
            gradient_checkpointing=False,
            completion_only_loss=True,
            packing=packing,
            padding_free=task["arm"] == "padding-free",
            train_sampling_strategy="group_by_length" if task["arm"] == "padding" else "random",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=1,
        ),
        train_dataset=Dataset.from_list([{"prompt": r[:-1], "completion": r[-1:]} for r in rows]),
        processing_class=AutoTokenizer.from_pretrained(task["base_dir"]),
        peft_config=LoraConfig(
            r=task["rank"],
            lora_alpha=task["alpha"],
            target_modules=MODULES,
            layers_to_transform=list(range(task["first_layer"], task["last_layer"] + 1)),
            task_type="CAUSAL_LM",
        ),
    )
    trainer.train()
    trainer.save_model(f"{task['output_dir']}/adapter")
    took = {
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - processor,
    }
    print(json.dumps(took))


if __name__ == "__main__":
    main()
