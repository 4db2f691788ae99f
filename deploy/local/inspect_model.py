"""``python -m deploy.local.inspect_model FOLDER``: what a base model is, as JSON on the last line.

Names and shapes come from the model itself, built without memory for its weights; the names inside
vLLM come from vLLM's own class. In a process of its own: it imports torch and vLLM.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from shared.catalog import AdapterProfile, Architecture, Defaults, Linear, Serving
from shared.chat.encoder import ChatEncoder
from shared.storage import sha256_of

CONTEXT_LENGTH = 4096
"""At most so much is proposed: what a sequence may need of the engine's memory goes with it."""
MAX_RANK = 16
_DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}


class Refused(Exception):
    """The model cannot be used; says why in a sentence."""


def describe(folder: Path) -> dict[str, Any]:
    """Return a BaseModelEntry without source and description; raises Refused."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        text = config.get_text_config()
        count, longest = text.num_hidden_layers, text.max_position_embeddings
    except (ValueError, KeyError, AttributeError) as error:
        raise Refused(f"transformers does not know this model: {error}") from error
    if quantised := getattr(config, "quantization_config", None):
        method = quantised.get("quant_method", "its own way")
        raise Refused(f"its weights are quantised ({method}); add the model they were made from")
    architecture = _architecture(model, count)
    layers = architecture.layers
    try:
        chat = ChatEncoder(folder)
    except FileNotFoundError as error:
        raise Refused(f"{Path(error.filename).name} is missing") from error
    except ValueError as error:
        raise Refused(str(error)) from error
    profile = AdapterProfile(
        first_trained_layer=layers - max(1, layers // 3),
        last_trained_layer=layers - 1,
        modules=tuple(architecture.linears),
        max_rank=MAX_RANK,
    )
    return {
        "name": folder.name,
        "context_length": min(CONTEXT_LENGTH, longest),
        "stop_token_ids": sorted(chat.base.stop_ids | {chat.turn_end}),
        "dtype": _DTYPES.get(config.dtype, "bfloat16"),
        "weights": {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))},
        "architecture": architecture.model_dump(),
        "profile": profile.model_dump(),
        "defaults": Defaults(rank=16, alpha=32, learning_rate=1e-3, batch_size=4).model_dump(),
        "serving": Serving(max_loras=4, logprob_tolerance=0.15).model_dump(),
    }


def _architecture(model: Any, count: int) -> Architecture:
    name = type(model).__name__
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    }
    if not lists:
        raise Refused(f"its {count} layers were not found in it")
    path, layers = next(iter(lists.items()))
    shapes = [_linears(layer) for layer in layers]
    if not shapes[0]:
        raise Refused("its layers have no linear modules that an adapter could be put beside")
    if any(each != shapes[0] for each in shapes):
        raise Refused("its layers are not all alike, which is not supported")
    runtime = _runtime_names(name)
    return Architecture(
        name=name,
        layers=count,
        layers_path=path,
        tied_head=bool(model.config.get_text_config().tie_word_embeddings),
        linears={
            module: Linear(inputs=inputs, outputs=outputs, runtime=_runtime(module, runtime))
            for module, (inputs, outputs) in shapes[0].items()
        },
    )


def _linears(layer: torch.nn.Module) -> dict[str, tuple[int, int]]:
    return {
        name: (module.in_features, module.out_features)
        for name, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def _runtime_names(architecture: str) -> dict[str, str]:
    """Return, for modules that vLLM computes together, the name of what computes them."""
    from vllm.model_executor.models.interfaces import supports_lora  # noqa: PLC0415  ten seconds
    from vllm.model_executor.models.registry import ModelRegistry  # noqa: PLC0415

    known = ModelRegistry.models.get(architecture)
    if known is None:
        raise Refused(f"vLLM does not know {architecture}, so it could not be served")
    served = known.load_model_cls()
    if not supports_lora(served):
        raise Refused(f"vLLM serves {architecture} without adapters")
    packed = served.packed_modules_mapping
    return {module: product for product, modules in packed.items() for module in modules}


def _runtime(module: str, names: dict[str, str]) -> str:
    parent, _, name = module.rpartition(".")
    return f"{parent}.{names.get(name, name)}".removeprefix(".")


def main() -> None:
    """Print what the folder named on the command line holds, or why it is refused."""
    try:
        found = describe(Path(sys.argv[1]))
    except Refused as reason:
        found = {"refused": str(reason)}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
