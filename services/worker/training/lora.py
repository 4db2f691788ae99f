"""The low-rank adapter: float32 masters in one flat buffer, arithmetic in the base's data type.

y = x Wᵀ + (α/r) (x Aᵀ) Bᵀ. Matrices that read the same input (q, k, v; gate, up) are one product.
One flat buffer makes the optimiser, the clipping and a checkpoint one operation each.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class Linears:
    """The linear modules of a base model's decoder, as far as an adapter needs to know them."""

    shapes: dict[str, tuple[int, int]]
    """(out, in) by full name, ``model.layers.20.self_attn.q_proj``."""
    products: dict[str, tuple[str, ...]]
    """Full names of those that one product computes side by side, by the product's name."""
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class Part:
    """One adapted matrix of a fused product, as views into the adapter's flat buffers."""

    outputs: slice
    """The columns of the product that this matrix computes."""
    a: Tensor
    """[r, in] in the base's data type."""
    b: Tensor
    """[out, r] likewise."""
    grad_a: Tensor
    """float32, like the masters."""
    grad_b: Tensor


class LoraWeights:
    """All low-rank factors of one job; initialised from ``seed`` alone."""

    def __init__(
        self,
        linears: Linears,
        modules: Sequence[str],
        *,
        rank: int,
        alpha: int,
        seed: int,
    ) -> None:
        """Make the factors of ``modules``, those of ``linears`` that are trained, by full name."""
        device, shapes = linears.device, linears.shapes
        self.rank, self.alpha, self.modules = rank, alpha, list(modules)
        self.scale = alpha / rank
        self._shapes = shapes
        self._layout = list(_lay_out(shapes, self.modules, rank))
        size = sum(rows * columns for _, _, (rows, columns) in self._layout)
        self.weights = torch.nn.Parameter(torch.zeros(size, device=device))
        self.grad = torch.zeros(size, device=device)
        self._cast = torch.zeros(size, device=device, dtype=linears.dtype)
        self._masters = self._views(self.weights.data)
        self.products = self._products(linears.products)
        self._initialise(seed)
        self.refresh()

    def _initialise(self, seed: int) -> None:
        """A as PEFT draws it (Kaiming uniform, √5: within ±1/√in), B zero: starts as the base."""
        generator = torch.Generator().manual_seed(seed)
        for key, master in self._masters.items():
            if key.endswith("lora_A"):
                bound = 1 / sqrt(master.shape[1])
                drawn = torch.empty(master.shape).uniform_(-bound, bound, generator=generator)
                master.copy_(drawn)

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        return {
            key: flat[start : start + shape[0] * shape[1]].view(shape)
            for key, start, shape in self._layout
        }

    def _products(self, products: dict[str, tuple[str, ...]]) -> dict[str, list[Part]]:
        """Parts by product, ``model.layers.20.qkv``, where there are any."""
        values, grads = self._views(self._cast), self._views(self.grad)
        found = {
            product: list(_parts(names, self._shapes, values, grads))
            for product, names in products.items()
        }
        return {product: parts for product, parts in found.items() if parts}

    def refresh(self) -> None:
        """Bring the copies in the base's data type up to date after the masters changed."""
        self._cast.copy_(self.weights.data)

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the factors under the names that PEFT and vLLM read, on the CPU."""
        return {
            f"base_model.model.{key}.weight": master.detach().cpu().clone()
            for key, master in self._masters.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over factors saved by ``tensors``."""
        for key, master in self._masters.items():
            master.copy_(tensors[f"base_model.model.{key}.weight"])
        self.refresh()

    def config(self, base_model: str) -> dict[str, Any]:
        """Contents of adapter_config.json."""
        config: dict[str, Any] = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=self.modules,
            task_type="CAUSAL_LM",
            base_model_name_or_path=base_model,
            inference_mode=True,
        ).to_dict()
        config["target_modules"] = self.modules  # PEFT keeps a set; a list is the same every time
        return config


def export(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write an adapter folder that PEFT and vLLM load."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    text = json.dumps(config, indent=1, sort_keys=True, default=str)
    (folder / "adapter_config.json").write_text(text)


def _lay_out(
    shapes: dict[str, tuple[int, int]], modules: list[str], rank: int
) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """Yield each factor's key, first element in the flat buffer and shape."""
    start = 0
    for name in modules:
        outputs, inputs = shapes[name]
        for key, shape in (("lora_A", (rank, inputs)), ("lora_B", (outputs, rank))):
            yield f"{name}.{key}", start, shape
            start += shape[0] * shape[1]


def _parts(
    names: tuple[str, ...],
    shapes: dict[str, tuple[int, int]],
    values: dict[str, Tensor],
    grads: dict[str, Tensor],
) -> Iterator[Part]:
    """Yield the adapted ones of the matrices ``names``, which lie side by side in one product."""
    column = 0
    for name in names:
        outputs = shapes[name][0]
        a, b = f"{name}.lora_A", f"{name}.lora_B"
        if a in values:
            columns = slice(column, column + outputs)
            yield Part(columns, values[a], values[b], grads[a], grads[b])
        column += outputs
