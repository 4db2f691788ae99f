"""Random small models of many architectures, each with what makes it unlike Llama."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SHAPE: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},  # biases
    "qwen3": {},  # norms of its heads
    "mistral": {"sliding_window": 12},
    "gemma2": {"sliding_window": 12},  # every second layer's; logits capped
    "gemma3_text": {"sliding_window": 12, "query_pre_attn_scalar": 8},
    "phi3": {"sliding_window": None},  # q, k, v are one matrix
    "olmo2": {},
    "granite": {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    "smollm3": {"no_rope_layer_interval": 2},
    "cohere": {"logit_scale": 0.25},
    "glm4": {"partial_rotary_factor": 0.5},
    "gpt_neox": {},
}


def build(kind: str, folder: Path, **changes: Any) -> Path:
    """Write a random model of ``kind``, in several files, and return its folder."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE | ARCHITECTURES.get(kind, {}) | changes)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms begin as 1 and biases as 0, which would hide their lack
            parameter.data.add_(0.3 * torch.randn(parameter.shape))
    model.save_pretrained(folder, max_shard_size="40KB")
    return folder
