"""Operations whose gradient is written by hand: fewer passes over memory, and the same bits always.

Autograd's own gradient of an index with repeats adds in any order on several threads; these never
do. Base weights get no gradient here, so what they would need is neither kept nor computed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from services.worker.training.lora import Part

LOGITS_CHUNK = 512
"""Answer tokens whose logits over the whole vocabulary exist at the same time."""


class AdaptedProduct(torch.autograd.Function):
    """Frozen product plus its adapted parts.

    The factors' gradients are added to the adapter's float32 buffer directly; ``anchor`` is only
    there to make the first trained layer, whose input needs no gradient, part of the graph.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,
        x: Tensor,
        anchor: Tensor,  # noqa: ARG004 - see above
        weight: Tensor,
        bias: Tensor | None,
        parts: Sequence[Part],
        scale: float,
    ) -> Tensor:
        """[T, in] → [T, out]."""
        y = functional.linear(x, weight, bias)
        inner = [x @ part.a.T for part in parts]  # [T, r] each
        for part, low in zip(parts, inner, strict=True):
            y[:, part.outputs].addmm_(low, part.b.T, alpha=scale)
        ctx.save_for_backward(x, weight, *inner)
        ctx.parts, ctx.scale = parts, scale
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Return the gradient of ``x`` only."""
        (grad,) = grads
        x, weight, *inner = ctx.saved_tensors
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        for part, low in zip(ctx.parts, inner, strict=True):
            own = grad[:, part.outputs]
            grad_low = (own @ part.b).mul_(ctx.scale)  # [T, r]
            part.grad_b.add_(own.T @ low, alpha=ctx.scale)
            part.grad_a.add_(grad_low.T @ x)
            if grad_x is not None:
                grad_x.addmm_(grad_low, part.a)
        return grad_x, None, None, None, None, None


class LowRank(torch.autograd.Function):
    """One adapted matrix's part of a product, to be added to what the frozen matrix gives.

    Gradients and ``anchor`` as in AdaptedProduct.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, part: Part, scale: float) -> Tensor:  # noqa: ARG004
        """[…, in] → […, out]."""
        low = x @ part.a.T  # […, r]
        ctx.save_for_backward(x, low)
        ctx.part, ctx.scale = part, scale
        return (low @ part.b.T).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Return the gradient of ``x`` only."""
        given, low = ctx.saved_tensors  # read once: they may be computed again for this
        x, low = given.flatten(0, -2), low.flatten(0, -2)  # [T, in], [T, r]
        grad = grads[0].flatten(0, -2)  # [T, out]
        grad_low = (grad @ ctx.part.b).mul_(ctx.scale)
        ctx.part.grad_b.add_(grad.T @ low, alpha=ctx.scale)
        ctx.part.grad_a.add_(grad_low.T @ x)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return (grad_low @ ctx.part.a).view_as(given), None, None, None


class Norm(torch.autograd.Function):
    """Root-mean-square norm over the last dimension, in float32 as in transformers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """[T, D] → [T, D]."""
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)  # [T, 1]
        scaled = wide.mul_(inverse).to(x.dtype) if x.dtype != wide.dtype else wide * inverse
        ctx.save_for_backward(scaled, weight, inverse)
        return weight * scaled

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """With n = x/rms: the gradient of x is (g - n · mean(g · n)) / rms."""
        scaled, weight, inverse = ctx.saved_tensors
        grad, wide = (grads[0] * weight).float(), scaled.float()
        share = (grad * wide).mean(-1, keepdim=True)
        return grad.addcmul(wide, share, value=-1).mul_(inverse).to(scaled.dtype), None, None


class GatedSilu(torch.autograd.Function):
    """silu(gate) · up for [T, 2F] that holds gate and up side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """[T, 2F] → [T, F]."""
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Recompute the silu, which is cheaper than keeping it."""
        (x,) = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        result = torch.empty_like(x)
        grad_gate, grad_up = result.chunk(2, dim=-1)
        grad_gate.copy_(torch.ops.aten.silu_backward(grads[0] * up, gate))
        torch.mul(grads[0], functional.silu(gate), out=grad_up)
        return result


class Spread(torch.autograd.Function):
    """Packed rows [T, …] to padded ones; ``collect`` is where each packed token went.

    Padding repeats a token; nobody reads what becomes of it, so its gradient is zero and the
    gradient is a plain selection.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, spread: Tensor, collect: Tensor) -> Tensor:
        """[T, …] → [B · R, …]."""
        ctx.save_for_backward(collect)
        return x.index_select(0, spread)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """[B · R, …] → [T, …]."""
        (collect,) = ctx.saved_tensors
        return grads[0].index_select(0, collect), None, None


class Select(torch.autograd.Function):
    """Rows ``places`` of x, which must differ from one another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        """[T, …] → [N, …]."""
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Each place is written once, the others are zero."""
        (places,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.shape).index_copy_(0, places, grads[0]), None


class AnswerLoss(torch.autograd.Function):
    """Cross entropy at the answer tokens, a chunk at a time, its gradient made on the way.

    The logits are the largest thing in training (a vocabulary of 49,152 per token): making the
    gradient while they are there means that they are never kept or computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the summed loss of [N, D] and how often the likeliest token was the right one.

        ``head`` makes logits [n, V] of [n, D]; its own weights get no gradient.
        """
        loss = torch.zeros((), device=x.device)
        correct = torch.zeros((), dtype=torch.long, device=x.device)
        grads: list[Tensor] = []
        for begin in range(0, len(x), LOGITS_CHUNK):
            end = begin + LOGITS_CHUNK
            part, wanted = x[begin:end].detach(), targets[begin:end]  # [n, D], [n]
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                logits = head(part.requires_grad_(ctx.needs_input_grad[0])).float()  # [n, V]
            correct += (logits.argmax(-1) == wanted).sum()
            logprobs = logits.detach().log_softmax(-1)
            loss -= logprobs.gather(1, wanted[:, None]).sum()
            if ctx.needs_input_grad[0]:
                grad = logprobs.exp_()  # softmax - one-hot
                grad[torch.arange(len(wanted), device=x.device), wanted] -= 1
                grads.extend(torch.autograd.grad(logits, part, grad))
        ctx.grad = torch.cat(grads) if grads else None
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Scale the gradient that ``forward`` left."""
        return ctx.grad * grads[0].to(ctx.grad.dtype), None, None


def tensor(operation: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Apply an operation that gives one tensor."""
    result: Tensor = apply(operation, *arguments)
    return result


def apply(operation: type[torch.autograd.Function], *arguments: Any) -> Any:
    """``operation.apply``, whose type torch does not declare."""
    return operation.apply(*arguments)  # type: ignore[no-untyped-call]
