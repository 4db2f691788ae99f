"""Which tensors an adapter may hold: pairs of the profile's modules, in the base model's shapes."""

from typing import Any

from shared.catalog import AdapterProfile
from shared.linear_modules import widths

PREFIX = "base_model.model."


def module_sizes(profile: AdapterProfile, base: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of each module that may be trained, by its full PEFT name.

    ``base`` is the base model's config.json.
    """
    width = widths(base)
    return {
        name: (width[linear.inputs], width[linear.outputs])
        for name, linear in profile.linears().items()
    }


def tensor_shapes(
    profile: AdapterProfile, base: dict[str, Any], rank: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that an adapter of ``rank`` may hold, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for module, (inputs, outputs) in module_sizes(profile, base).items():
        shapes[f"{PREFIX}{module}.lora_A.weight"] = (rank, inputs)
        shapes[f"{PREFIX}{module}.lora_B.weight"] = (outputs, rank)
    return shapes
