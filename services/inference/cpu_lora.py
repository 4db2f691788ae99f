"""Replaces the LoRA arithmetic of vLLM's CPU backend, which mixes tenants up.

vLLM indexes the stacked adapters by each token's slot. A base-model token has slot -1, which is
the *last* slot in PyTorch: with every slot taken, the base model answers with a tenant's adapter.
It also copies an adapter's matrices for every token. ``grouped_lora.py`` does neither.
"""

from typing import Any

import torch
from vllm import __version__ as vllm_version
from vllm.lora.punica_wrapper import punica_cpu

from services.inference.grouped_lora import FusedWeights, Groups, group_by_slot
from services.inference.reports import Reports

WRITTEN_FOR = "0.32.0"


class GroupedLoRA(punica_cpu.PunicaWrapperCPU):  # type: ignore[misc]  # vLLM is not typed for us
    """vLLM's CPU wrapper with its bookkeeping kept and its linear operation replaced."""

    reports: Reports | None = None
    """Set by ``install``; building a wrapper is what shows that the worker uses this one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._weights = FusedWeights()
        self._groups: Groups = []
        if self.reports is not None:
            self.reports.write("cpu_lora")

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Learn which token of the coming forward pass belongs to which slot."""
        super().update_metadata(*args, **kwargs)
        self._groups = group_by_slot(self.token_lora_indices.tolist())

    def add_lora_linear(  # noqa: PLR0917  the signature is vLLM's
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],  # noqa: ARG002  B's shapes say the same
        **_: Any,
    ) -> None:
        """Add each token's own adapter to ``y``; vLLM has put the scale into B and passes 1."""
        if scale != 1.0:
            raise ValueError("vLLM passes a scale now; cpu_lora.py must be read again")
        self._weights.add(y, x, lora_a_stacked, lora_b_stacked, self._groups)


def install(reports: Reports) -> None:
    """Check, then put the operation in place of vLLM's; raise RuntimeError when it does not fit."""
    if vllm_version.split("+")[0] != WRITTEN_FOR:
        raise RuntimeError(f"cpu_lora.py is for vLLM {WRITTEN_FOR}, this is {vllm_version}")
    self_test()
    GroupedLoRA.reports = reports
    punica_cpu.PunicaWrapperCPU = GroupedLoRA


def self_test() -> None:
    """Compare one mixed batch with the plain formula, token by token; raise RuntimeError."""
    generator = torch.Generator().manual_seed(0)
    slots, sizes, rank, width = [2, -1, 0, 2, -1, 1, 1], (6, 4), 3, 8
    a = tuple(torch.randn(3, 1, rank, width, generator=generator) for _ in sizes)
    b = tuple(torch.randn(3, 1, size, rank, generator=generator) for size in sizes)
    x = torch.randn(len(slots), width, generator=generator)
    before = torch.randn(len(slots), sum(sizes), generator=generator)
    y = before.clone()
    FusedWeights().add(y, x, a, b, group_by_slot(slots))
    for token, slot in enumerate(slots):
        expected = before[token].clone()
        if slot >= 0:
            parts = [bi[slot, 0] @ (ai[slot, 0] @ x[token]) for ai, bi in zip(a, b, strict=True)]
            expected += torch.cat(parts)
        if not torch.allclose(y[token], expected, atol=1e-5):
            raise RuntimeError(f"the CPU LoRA operation is wrong for a token of slot {slot}")
