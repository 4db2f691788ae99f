"""The frozen base model: Llama's and Qwen2's decoder on packed rows, with or without an adapter.

Weights come from transformers; matrices that read the same input are stored side by side so that
they are one product. Shapes: T packed tokens, of them S shared by the B rows, whose own tokens are
padded to R each (pack.py); D width, H query heads, G key heads, E width of a head, N answer tokens,
V vocabulary. H / G query heads read the same keys and values (grouped-query attention).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from services.worker.training.lora import FUSED, LoraWeights
from services.worker.training.ops import (
    AdaptedProduct,
    AnswerLoss,
    GatedSilu,
    Norm,
    Select,
    Spread,
)
from services.worker.training.pack import Pack

SHORT_KEYS = 512
"""Up to this many keys a row, plain products are 2 to 4 times as fast as the CPU's flash attention
(backward in bf16, 8 rows of 65 tokens: 3 ms instead of 14)."""


@dataclass(frozen=True)
class Layer:
    """One decoder layer's weights."""

    name: str
    """``model.layers.20``"""
    attention_norm: Tensor
    mlp_norm: Tensor
    products: dict[str, Tensor]
    """[out, in] by key of FUSED."""
    biases: dict[str, Tensor | None]


class FrozenModel:
    """A base model that nothing here ever changes."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the weights in ``folder`` (about a second for 135M parameters).

        Raises ValueError where some are missing: transformers would make them up.
        """
        model: Any
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, output_loading_info=True
        )
        if found["missing_keys"]:
            raise ValueError("weights are missing in the base model's folder")
        config = model.config
        model.requires_grad_(False)
        model.to(device)
        self.device = device
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.epsilon: float = config.rms_norm_eps
        # Copies, here and in _fuse: a view into the mapped file would keep all of it in memory.
        self.embedding: Tensor = model.model.embed_tokens.weight.data.clone()
        self.final_norm: Tensor = model.model.norm.weight.data.clone()
        tied = model.lm_head.weight is model.model.embed_tokens.weight
        lm_head: Tensor = self.embedding if tied else model.lm_head.weight.data.clone()
        self.lm_head = lm_head  # [V, D]
        self.dtype = self.embedding.dtype
        self.rotary = model.model.rotary_emb
        self.shapes = {
            name: (module.out_features, module.in_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        self.layers = [
            _fuse(f"model.layers.{number}", layer)
            for number, layer in enumerate(model.model.layers)
        ]

    def checksum(self) -> str:
        """Hash of every weight, to prove that a job left the base as it was."""
        digest = hashlib.sha256()
        for tensor in self._weights():
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _weights(self) -> Iterator[Tensor]:
        yield from (self.embedding, self.final_norm, self.lm_head)
        for layer in self.layers:
            yield from (layer.attention_norm, layer.mlp_norm, *layer.products.values())
            yield from (bias for bias in layer.biases.values() if bias is not None)

    def embed(self, pack: Pack) -> Tensor:
        """Return the states that enter layer 0, [T, D]."""
        return functional.embedding(pack.token_ids, self.embedding)

    def run(
        self, states: Tensor, pack: Pack, layers: range, adapter: LoraWeights | None = None
    ) -> Tensor:
        """Run ``layers`` on ``states`` [T, D].

        After the model's last layer only the places that predict an answer token are left, [N, D]:
        nobody reads the others there, so that layer's MLP is computed for them alone.
        """
        cos, sin = self.rotary(states[None], pack.positions[None])  # [1, T, E] each
        site = _Site(pack, cos[0, :, None], sin[0, :, None])
        for number in layers:
            states = self._layer(self.layers[number], states, site, adapter)
        return states

    def _layer(
        self, layer: Layer, states: Tensor, site: "_Site", adapter: LoraWeights | None
    ) -> Tensor:
        """[T, D] → [T, D], or [N, D] where ``layer`` is the model's last."""
        normed = self._norm(states, layer.attention_norm)
        mixed = self._attend(self._product(layer, "qkv", normed, adapter), site)  # [T, H · E]
        if layer is self.layers[-1]:
            # Behind the last attention no token reads another: only answers are looked at.
            mixed, states = (_tensor(Select, x, site.pack.predicting) for x in (mixed, states))
        states = states + self._product(layer, "o", mixed, adapter)
        normed = self._norm(states, layer.mlp_norm)
        inner = _tensor(GatedSilu, self._product(layer, "gate_up", normed, adapter))  # [T, F]
        return states + self._product(layer, "down", inner, adapter)

    def _product(self, layer: Layer, key: str, x: Tensor, adapter: LoraWeights | None) -> Tensor:
        weight, bias = layer.products[key], layer.biases[key]
        if adapter is None:
            return functional.linear(x, weight, bias)
        parts = adapter.products[f"{layer.name}.{key}"]
        return _tensor(AdaptedProduct, x, adapter.weights, weight, bias, parts, adapter.scale)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return _tensor(Norm, x, weight, self.epsilon)

    def _attend(self, qkv: Tensor, site: "_Site") -> Tensor:
        """[T, (H + 2G) · E] → [T, H · E].

        Tokens of the shared beginning attend to it alone; a row's own tokens to it and to the row's
        own. So its keys and values are computed once and put before those of every row.
        """
        pack = site.pack
        tokens, sizes = qkv.shape[0], [self.heads, self.key_heads, self.key_heads]
        qkv = qkv.view(tokens, sum(sizes), -1)  # [T, H + 2G, E]
        # Queries and keys are turned together, values not: they are the last G.
        turned = _rotate(qkv[:, : -self.key_heads], site.cos, site.sin)
        qkv = torch.cat([turned, qkv[:, -self.key_heads :]], dim=1)
        shared, own = qkv[: pack.shared], qkv[pack.shared :]  # [S, …], [T - S, …]
        # Spread and split together: one copy instead of three, forward and backward.
        padded = _tensor(Spread, own, pack.spread, pack.collect)  # [B · R, H + 2G, E]
        padded = padded.view(len(pack.rows), -1, *own.shape[1:])  # [B, R, H + 2G, E]
        queries, keys, values = torch.split(padded, sizes, dim=2)
        shared_queries, shared_keys, shared_values = torch.split(shared, sizes, dim=1)
        mixed = _attention(
            queries,  # [B, R, H, E]
            _behind(shared_keys, keys),  # [B, S + R, G, E]
            _behind(shared_values, values),
            pack.mask,
        )
        result = _tensor(Select, mixed.flatten(0, 1), pack.collect)  # [T - S, H, E], no padding
        if pack.shared:
            first = _attention(  # as one row of S tokens
                shared_queries[None], shared_keys[None], shared_values[None], pack.shared_mask
            )
            result = torch.cat([first[0], result])
        return result.reshape(tokens, -1)

    def answer_loss(self, states: Tensor, pack: Pack) -> tuple[Tensor, int]:
        """Summed loss of the pack's answer tokens and how many the model would have chosen.

        ``states`` [N, D] as they leave the last layer.
        """
        normed = self._norm(states, self.final_norm)
        loss, correct = _apply(AnswerLoss, normed, self.lm_head, pack.targets)
        return loss, int(correct)

    def logprobs(self, states: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each of ``targets`` [N]."""
        logits = functional.linear(self._norm(states, self.final_norm), self.lm_head).float()
        return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


@dataclass(frozen=True)
class _Site:
    """Where the tokens of one pass stand."""

    pack: Pack
    cos: Tensor
    """[T, 1, E] of each token's rotary position."""
    sin: Tensor


def _tensor(operation: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    result: Tensor = _apply(operation, *arguments)
    return result


def _apply(operation: type[torch.autograd.Function], *arguments: Any) -> Any:
    """``operation.apply``, whose type torch does not declare."""
    return operation.apply(*arguments)  # type: ignore[no-untyped-call]


def _fuse(name: str, layer: Any) -> Layer:
    modules = {key: [layer.get_submodule(n) for n in names] for key, names in FUSED.items()}
    return Layer(
        name=name,
        attention_norm=layer.input_layernorm.weight.data.clone(),
        mlp_norm=layer.post_attention_layernorm.weight.data.clone(),
        products={
            key: torch.cat([module.weight.data for module in group])
            for key, group in modules.items()
        },
        biases={
            key: None
            if group[0].bias is None
            else torch.cat([module.bias.data for module in group])
            for key, group in modules.items()
        },
    )


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position of [T, heads, E]; halves, as Llama stores them."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def _behind(shared: Tensor, own: Tensor) -> Tensor:
    """Put the shared [S, G, E] before each row's own [B, R, G, E]: [B, S + R, G, E]."""
    if not len(shared):
        return own
    return torch.cat([shared.expand(len(own), *shared.shape), own], dim=1)


def _attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """[B, R, H, E] queries over [B, K, G, E] keys, ``mask`` [R, K] added to the scores.

    softmax(Q Kᵀ / √E + mask) V for each query head; returns [B, R, H, E].
    """
    if keys.shape[1] > SHORT_KEYS or keys.is_cuda:
        return functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=mask.to(queries.dtype),
            enable_gqa=True,
        ).transpose(1, 2)
    rows, own, _, width = queries.shape
    groups = keys.shape[2]
    # The H / G heads that read the same keys become one longer list of queries, so that keys and
    # values are not copied for each head: [B, R, H, E] → [B · G, (H / G) · R, E].
    grouped = queries.reshape(rows, own, groups, -1, width).permute(0, 2, 3, 1, 4)
    grouped = grouped.reshape(rows * groups, -1, width) * width**-0.5
    # [B · G, (H / G) · R, E] by [B · G, E, K]
    scores = torch.bmm(grouped, keys.permute(0, 2, 3, 1).reshape(rows * groups, width, -1))
    # The mask is the same for every row and head; the softmax is in float32, as in transformers.
    scores = scores.view(rows * groups, -1, *mask.shape).float() + mask  # [B · G, H / G, R, K]
    shares = scores.softmax(-1).to(values.dtype).flatten(1, 2)  # [B · G, (H / G) · R, K]
    mixed = torch.bmm(shares, values.transpose(1, 2).reshape(rows * groups, -1, width))
    # [B · G, (H / G) · R, E] → [B, G, H / G, R, E] → [B, R, G, H / G, E] → [B, R, H, E]
    return mixed.view(rows, groups, -1, own, width).permute(0, 3, 1, 2, 4).flatten(2, 3)
