"""Which tensors an adapter may hold: pairs of the profile's modules, in the base model's shapes."""

from shared.catalog import BaseModelEntry

PREFIX = "base_model.model."


def tensor_shapes(entry: BaseModelEntry, rank: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that an adapter of ``rank`` may hold, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for module, linear in entry.trained_linears().items():
        shapes[f"{PREFIX}{module}.lora_A.weight"] = (rank, linear.inputs)
        shapes[f"{PREFIX}{module}.lora_B.weight"] = (linear.outputs, rank)
    return shapes
