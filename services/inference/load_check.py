"""Whether an adapter's folder may be served: hashes, base model, shape. Needs no vLLM."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from shared.adapters.shapes import PREFIX
from shared.catalog import BaseModelEntry, Linear
from shared.errors import TailorError
from shared.storage import verify_manifest


class AdapterRefused(TailorError):
    """The adapter exists and must not be served as this server was started; says why."""

    status = 422
    type = "invalid_request_error"
    default_code = "adapter_refused"


class BaseNotServed(AdapterRefused):
    """The adapter belongs to another base model."""

    default_code = "base_not_served"


def verify_adapter(folder: Path, entry: BaseModelEntry) -> None:
    """Read every file of an adapter and check it against what vLLM was started with.

    vLLM drops the weights of modules that it was not started with and answers without them, so
    each module and each tensor must be inside the profile of ``entry``. An adapter made for a wider
    one is served as long as it fits this one.
    Raises CorruptArtifact when a file differs from the manifest, AdapterRefused when it must not
    be served by this base model.
    """
    meta = verify_manifest(folder)
    if meta.get("base_sha256") != entry.base_sha256:
        raise BaseNotServed("it was trained on another base model")
    config = json.loads((folder / "adapter_config.json").read_bytes())
    _check_config(config, entry)
    changed = meta.get("profile_sha256") not in {None, entry.profile.sha256()}
    for name in _outside(folder / "adapter_model.safetensors", entry):
        since = "; the profile was changed since it was trained" if changed else ""
        raise AdapterRefused(f"{name} is outside the adapter profile that is served{since}")


def _check_config(config: dict[str, Any], entry: BaseModelEntry) -> None:
    rank = max([config["r"], *config.get("rank_pattern", {}).values()])
    if rank > entry.profile.max_rank:
        raise AdapterRefused(f"its rank {rank} is above {entry.profile.max_rank}")
    for feature in ("use_dora", "modules_to_save"):
        if config.get(feature):
            raise AdapterRefused(f"vLLM cannot serve {feature}")
    if config.get("bias", "none") != "none":
        raise AdapterRefused("vLLM cannot serve bias")
    targets = config.get("target_modules") or ()
    # PEFT also takes bare names and patterns: then the tensors say which layers are meant.
    bare = {path.rpartition(".")[2] for path in entry.profile.modules}
    known = {*entry.peft_modules(), *entry.profile.modules, *bare}
    if not isinstance(targets, str) and (beyond := set(targets) - known):
        raise AdapterRefused(f"{min(beyond)} is outside the adapter profile that is served")


def _outside(path: Path, entry: BaseModelEntry) -> list[str]:
    """Return the tensors that are not one half of a pair of a served module."""
    try:
        with safe_open(path, framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise AdapterRefused("its weights are not a readable safetensors file") from error
    linears, max_rank = entry.trained_linears(), entry.profile.max_rank
    return [name for name, shape in shapes.items() if not _fits(name, shape, linears, max_rank)]


def _fits(name: str, shape: tuple[int, ...], linears: dict[str, Linear], max_rank: int) -> bool:
    module, _, side = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
    if module not in linears or len(shape) != 2:
        return False
    inputs, outputs = linears[module].inputs, linears[module].outputs
    match side:
        case "lora_A":
            return shape[1] == inputs and 1 <= shape[0] <= max_rank
        case "lora_B":
            return shape[0] == outputs and 1 <= shape[1] <= max_rank
    return False
