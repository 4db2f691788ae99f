"""The trainer's adapter against the catalog's profile, read from disk without torch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from shared.adapters.shapes import tensor_shapes
from shared.catalog import BaseModelEntry

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_REFUSED = ("use_dora", "modules_to_save", "use_rslora", "trainable_token_indices")


class InvalidAdapter(Exception):
    """The folder does not hold an adapter that may be served; says why."""


def check_adapter(folder: Path, entry: BaseModelEntry) -> None:
    """Raise InvalidAdapter unless ``folder`` holds a plain LoRA adapter inside the profile.

    Allowed are only the two files, LoRA pairs of the profile's modules with the base model's
    shapes and one rank, finite numbers, and at least one pair
    that changes something (a product with an all-zero matrix changes nothing).
    """
    present = {path.name for path in folder.iterdir()} - {"MANIFEST.json"}
    if present != {WEIGHTS, CONFIG}:
        raise InvalidAdapter(f"unexpected or missing files: {sorted(present ^ {WEIGHTS, CONFIG})}")
    config = json.loads((folder / CONFIG).read_bytes())
    rank = _rank(config, entry)
    if beyond := set(config.get("target_modules") or ()) - set(entry.peft_modules()):
        raise InvalidAdapter(f"{min(beyond)} is outside the adapter profile")
    expected = tensor_shapes(entry, rank)
    effective: dict[str, set[str]] = {}
    for name, values in _tensors(folder / WEIGHTS):
        if expected.get(name) != values.shape:
            raise InvalidAdapter(f"{name} {values.shape} is outside the adapter profile")
        if values.dtype != np.float32:
            raise InvalidAdapter(f"{name} is not float32, as the trainer writes it")
        if not np.isfinite(values).all():
            raise InvalidAdapter(f"{name} is not finite")
        module, _, side = name.removesuffix(".weight").rpartition(".")
        effective.setdefault(module, set()).update({side} if values.any() else ())
        effective[module].add(f"has {side}")
    if any(not {"has lora_A", "has lora_B"} <= sides for sides in effective.values()):
        raise InvalidAdapter("a LoRA matrix lacks its partner")
    if not any({"lora_A", "lora_B"} <= sides for sides in effective.values()):
        raise InvalidAdapter("the adapter changes nothing")


def _rank(config: dict[str, Any], entry: BaseModelEntry) -> int:
    refused = [key for key in _REFUSED if config.get(key)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or refused:
        raise InvalidAdapter("not a plain LoRA adapter")
    rank = config.get("r")
    if not isinstance(rank, int) or not 1 <= rank <= entry.profile.max_rank:
        raise InvalidAdapter(f"rank {rank} is outside the adapter profile")
    return rank


def _tensors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield name and values of each tensor; raise InvalidAdapter for a malformed file."""
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  the file is no mapping
                yield name, file.get_tensor(name)
    except (SafetensorError, TypeError) as error:  # the latter for types that numpy has not
        raise InvalidAdapter("not a readable safetensors file") from error
