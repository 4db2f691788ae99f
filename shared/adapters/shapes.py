"""Which tensors an adapter may hold: pairs of the profile's modules, in the base model's shapes.

A safetensors file is eight bytes of header length, a JSON header, then the tensors' bytes.
"""

import json
from pathlib import Path
from typing import Any

from shared.catalog import AdapterProfile

PREFIX = "base_model.model."
MOST_HEADER_BYTES = 100 * 2**20
"""What the safetensors library itself admits."""


def module_sizes(profile: AdapterProfile, base: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of each module that may be trained, by its full PEFT name.

    ``base`` is the base model's config.json.
    """
    hidden, inner = base["hidden_size"], base["intermediate_size"]
    heads = base["num_attention_heads"]
    head = base.get("head_dim") or hidden // heads
    query, key_value = heads * head, base["num_key_value_heads"] * head
    sizes = {
        "q_proj": (hidden, query),
        "k_proj": (hidden, key_value),
        "v_proj": (hidden, key_value),
        "o_proj": (query, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    return {name: sizes[name.rpartition(".")[2]] for name in profile.peft_modules()}


def tensor_shapes(
    profile: AdapterProfile, base: dict[str, Any], rank: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that an adapter of ``rank`` may hold, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for module, (inputs, outputs) in module_sizes(profile, base).items():
        shapes[f"{PREFIX}{module}.lora_A.weight"] = (rank, inputs)
        shapes[f"{PREFIX}{module}.lora_B.weight"] = (outputs, rank)
    return shapes


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return each tensor's ``dtype``, ``shape`` and ``data_offsets``; raise ValueError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise ValueError("the header is too long")
        header = json.loads(file.read(length))
    if not isinstance(header, dict) or not all(isinstance(v, dict) for v in header.values()):
        raise ValueError("the header is no table of tensors")
    header.pop("__metadata__", None)
    return header
