"""Rows, packs and adapters for tests of the packed model."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from services.worker.training.data import Row
from services.worker.training.fused import FusedDecoder
from services.worker.training.lora import LoraWeights
from services.worker.training.pack import Pack, make_pack
from services.worker.training.rows import gather
from shared.catalog import load_catalog

CPU = torch.device("cpu")


def rows(shared: int, *own: int) -> list[Row]:
    """Rows that begin with ``shared`` equal tokens; each one's last three are its answer."""
    generator = torch.Generator().manual_seed(3)
    beginning = torch.randint(3, 250, (shared,), generator=generator).tolist()
    made = []
    for count in own:
        token_ids = beginning + torch.randint(3, 250, (count,), generator=generator).tolist()
        answers = np.arange(len(token_ids) - 3, len(token_ids))
        made.append(Row(1, np.array(token_ids, dtype=np.int32), answers))
    return made


def pack_of(chosen: list[Row]) -> Pack:
    with tempfile.TemporaryDirectory() as folder:
        return make_pack(range(len(chosen)), gather(chosen, Path(folder)), CPU)


def make_adapter(base: FusedDecoder, models_dir: Path, seed: int = 1) -> LoraWeights:
    modules = load_catalog(models_dir).get("tiny").peft_modules()
    return LoraWeights(base.linears, modules, rank=4, alpha=8, seed=seed)


def disturb(adapter: LoraWeights) -> None:
    """Fill every factor with something, as if it had been trained."""
    generator = torch.Generator().manual_seed(5)
    adapter.weights.data.copy_(0.1 * torch.randn(adapter.weights.shape, generator=generator))
    adapter.refresh()


def gradients(adapter: LoraWeights) -> dict[str, torch.Tensor]:
    """The factors' gradients under the factors' names."""
    weights = adapter.weights.data.clone()
    adapter.weights.data.copy_(adapter.grad)
    named = adapter.tensors()
    adapter.weights.data.copy_(weights)
    return named
