"""``python -m deploy.local.convert GGUF FOLDER``: GGUF weights to bf16 safetensors.

Run once by set-up, in a process of its own: nothing else of deployment imports torch.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(gguf: Path, target: Path) -> None:
    """Write model, configuration and tokenizer of ``gguf`` to ``target`` (about 25 s for 135M)."""
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        # Saving a model that is still quantised is refused.
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
