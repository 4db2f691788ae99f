"""The training paths on an NVIDIA GPU, against PEFT on the CPU."""

import os
from pathlib import Path

import pytest
import torch

from services.worker.training.lora import LoraWeights, export
from services.worker.training.pack import make_pack
from services.worker.training.paths import load_decoder
from services.worker.training.rows import gather
from tests.services.worker.training.architectures import ARCHITECTURES, build
from tests.services.worker.training.packs import disturb, gradients, rows
from tests.services.worker.training.test_gradients import (
    distance,
    named_gradients,
    plain_peft,
    summed_loss,
)

pytestmark = pytest.mark.gpu


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        if os.environ.get("REQUIRE_GPU") == "1":
            pytest.fail("REQUIRE_GPU=1, and torch finds no NVIDIA GPU")
        pytest.skip("torch finds no NVIDIA GPU")
    return torch.device("cuda")


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_gradients_on_the_gpu_are_pefts_on_the_cpu(
    device: torch.device, kind: str, recompute: bool, tmp_path: Path
) -> None:
    folder = build(kind, tmp_path / "base")
    decoder, chosen = load_decoder(folder, device, 2), rows(9, 5, 17, 8)
    pack = make_pack(
        range(len(chosen)), gather(chosen, tmp_path), device, share=decoder.shares_beginnings
    )
    modules = [name for name in decoder.linears.shapes if ".layers.2." in name or ".3." in name]
    adapter = LoraWeights(decoder.linears, modules, rank=4, alpha=8, seed=1)
    disturb(adapter)
    export(tmp_path / "adapter", adapter.tensors(), adapter.config("any"))
    with torch.no_grad():
        entering = decoder.below(pack, 2)
    states = decoder.above(entering, pack, 2, adapter, recompute=recompute)
    loss, _ = decoder.answer_loss(states, pack)
    loss.backward()
    wrapped = plain_peft(folder, tmp_path / "adapter")
    total = summed_loss(wrapped, chosen)
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-4)
    ours = {name: gradient.cpu() for name, gradient in gradients(adapter).items()}
    assert distance(ours, named_gradients(wrapped)) < 1e-3
