"""What the loop knows of a base model: states below and above its first trained layer, and losses.

Two paths compute them. The generic one (generic.py) runs the layers as transformers wrote them, for
any decoder; it is the reference. The fused one (fused.py) is written out for a few families, and is
used where it has just given transformers' own figures on these very weights (paths.py).

Shapes: T packed tokens (pack.py), D width, N answer tokens.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from services.worker.training.lora import Linears, LoraWeights
from services.worker.training.pack import Pack
from shared.processor import has_instructions_for_bf16


class Decoder(Protocol):
    """A base model that nothing here ever changes."""

    @property
    def path(self) -> str:
        """``fused`` or ``generic``."""
        ...

    linears: Linears
    width: int
    """D."""
    shares_beginnings: bool
    """Whether a pack's rows may have their common beginning only once."""

    def checksum(self) -> str:
        """Hash of every weight, to prove that a job left the base as it was."""
        ...

    def below(self, pack: Pack, layer: int) -> Tensor:
        """Return the states that enter ``layer``, [T, D]; of the base alone."""
        ...

    def above(
        self,
        states: Tensor,
        pack: Pack,
        layer: int,
        adapter: LoraWeights | None = None,
        *,
        recompute: bool = False,
    ) -> Tensor:
        """Run ``layer`` and all that follow on ``states`` [T, D].

        Returns what the answer tokens are predicted from, [N, D], for the two methods below. Where
        the backward pass is to ``recompute``, a layer keeps nothing but what enters it.
        """
        ...

    def answer_loss(self, states: Tensor, pack: Pack) -> tuple[Tensor, int]:
        """Summed loss of the pack's answer tokens and how many the model would have chosen."""
        ...

    def logprobs(self, states: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each of ``targets`` [N]."""
        ...


def computed_in(device: torch.device) -> torch.dtype | Literal["auto"]:
    """Return the precision that a base model is computed in: its own, where that is fast."""
    slow = device.type == "cpu" and not has_instructions_for_bf16()
    return torch.float32 if slow else "auto"


def load_model(folder: Path, device: torch.device) -> Any:
    """Load a base model as transformers has it (about a second for 135M parameters), frozen.

    Safetensors only, in one or many files. Raises ValueError where weights are missing, which
    transformers would make up, or where there are some that it would not use.
    """
    model, found = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=computed_in(device),
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if found["missing_keys"]:
        raise ValueError("weights are missing in the base model's folder")
    # Older checkpoints hold the rotary frequencies, which are computed.
    if needless := {key for key in found["unexpected_keys"] if not key.endswith(".inv_freq")}:
        raise ValueError(f"the base model's configuration has no place for {min(needless)}")
    model.requires_grad_(False)
    model.eval()
    return model.to(device)


def run_layer(layer: Callable[..., Any], *arguments: Any, recompute: bool, **options: Any) -> Any:
    """Return ``layer`` of its arguments; the backward pass may compute again what is inside.

    Activation checkpointing (Chen et al., arXiv 1604.06174): a third more to do, the same bits.
    """
    if not (recompute and torch.is_grad_enabled()):
        return layer(*arguments, **options)
    # Nothing here draws random numbers, so that their state need not be kept either.
    options |= {"use_reentrant": False, "preserve_rng_state": False}
    return checkpoint(layer, *arguments, **options)


def checksum(tensors: list[Tensor]) -> str:
    """Hash of the tensors' bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def linear_shapes(model: Any) -> dict[str, tuple[int, int]]:
    """Return (out, in) of every linear module of ``model`` by its full name."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
