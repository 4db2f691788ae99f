"""AdamW over all of an adapter's factors at once: they lie in one flat buffer."""

import torch
from torch import Tensor

from services.worker.training.lora import LoraWeights

BETAS = (0.9, 0.999)
MOMENTS = ("exp_avg", "exp_avg_sq")
"""torch's names of AdamW's running means of the gradient and of its square."""


class Optimizer:
    """AdamW without weight decay, which goes on from saved moments."""

    def __init__(self, adapter: LoraWeights, moments: dict[str, Tensor], steps_done: int) -> None:
        """``moments`` are empty at a fresh start, else what ``moments`` returned."""
        weights = adapter.weights
        weights.grad = adapter.grad
        self._adapter = adapter
        self._adamw = torch.optim.AdamW([weights], betas=BETAS, weight_decay=0.0, fused=True)
        self._moments = {
            name: moments[name].to(weights.device) if moments else torch.zeros_like(weights.data)
            for name in MOMENTS
        }
        step = torch.tensor(float(steps_done), device=weights.device)
        self._adamw.state[weights] = {"step": step, **self._moments}

    def step(self, learning_rate: float) -> None:
        """Change the adapter by the gradient in its buffer."""
        self._adamw.param_groups[0]["lr"] = learning_rate
        self._adamw.step()
        self._adapter.refresh()

    def moments(self) -> dict[str, Tensor]:
        """Return the running means, on the CPU."""
        return {name: moment.cpu() for name, moment in self._moments.items()}
