"""The fused path: the decoder of Llama, Mistral, Qwen2 and Qwen3 written out for packed rows.

Weights come from transformers; matrices that read the same input are stored side by side so that
they are one product. A model that has more than these families' arithmetic is refused: by its
configuration and its weights here, by its figures in paths.py.

Shapes: T packed tokens, of them S shared by the B rows, whose own tokens are
padded to R each (pack.py); D width, H query heads, G key heads, E width of a head, N answer tokens,
V vocabulary. H / G query heads read the same keys and values (grouped-query attention).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from services.worker.training.decoder import checksum, linear_shapes, run_layer
from services.worker.training.lora import Linears, LoraWeights
from services.worker.training.ops import (
    AdaptedProduct,
    AnswerLoss,
    GatedSilu,
    Norm,
    Select,
    Spread,
    apply,
    tensor,
)
from services.worker.training.pack import Pack

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose arithmetic this is."""
PRODUCTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Linear modules of a layer by the product that computes them, in the order of the computation."""
SHORT_KEYS = 512
"""Up to this many keys a row, plain products are 2 to 4 times as fast as the CPU's flash attention
(backward in bf16, 8 rows of 65 tokens: 3 ms instead of 14)."""


class Unfit(Exception):
    """The model computes something that the fused path does not."""


@dataclass(frozen=True)
class Layer:
    """One decoder layer's weights."""

    name: str
    """``model.layers.20``"""
    attention_norm: Tensor
    mlp_norm: Tensor
    products: dict[str, Tensor]
    """[out, in] by key of PRODUCTS."""
    biases: dict[str, Tensor | None]
    head_norms: tuple[Tensor, Tensor] | None
    """[E] for queries and keys, before they are turned (Qwen3)."""

    def tensors(self) -> Iterator[Tensor]:
        """Yield every weight."""
        yield from (self.attention_norm, self.mlp_norm, *self.products.values())
        yield from (bias for bias in self.biases.values() if bias is not None)
        yield from self.head_norms or ()


class FusedDecoder:
    """One of FAMILIES on packed rows; see decoder.Decoder."""

    path = "fused"
    shares_beginnings = True

    def __init__(self, model: Any) -> None:
        """Take over the weights of ``model``; raises Unfit where it is another kind of model."""
        config = model.config
        if (reason := _misfit(config)) is not None:
            raise Unfit(reason)
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.epsilon: float = config.rms_norm_eps
        # Copies, here and in _fuse: a view into the mapped file would keep all of it in memory.
        self.embedding: Tensor = model.model.embed_tokens.weight.data.clone()
        self.final_norm: Tensor = model.model.norm.weight.data.clone()
        tied = model.lm_head.weight is model.model.embed_tokens.weight
        lm_head: Tensor = self.embedding if tied else model.lm_head.weight.data.clone()
        self.lm_head = lm_head  # [V, D]
        self.width: int = self.embedding.shape[1]
        self.rotary = model.model.rotary_emb
        self.layers = [
            _fuse(f"model.layers.{number}", layer)
            for number, layer in enumerate(model.model.layers)
        ]
        products = {
            f"{layer.name}.{product}": tuple(f"{layer.name}.{path}" for path in paths)
            for layer in self.layers
            for product, paths in PRODUCTS.items()
        }
        self.linears = Linears(linear_shapes(model), products, model.device, self.embedding.dtype)
        self._nothing_left_out(model)

    def checksum(self) -> str:
        """Hash of every weight."""
        return checksum(list(self._weights()))

    def _weights(self) -> Iterator[Tensor]:
        yield from (self.embedding, self.final_norm, self.lm_head)
        for layer in self.layers:
            yield from layer.tensors()

    def _nothing_left_out(self, model: Any) -> None:
        """Count numbers: a weight that nothing here reads is arithmetic that nothing here does."""
        ours = {tensor.data_ptr(): tensor.numel() for tensor in self._weights()}
        theirs = {tensor.data_ptr(): tensor.numel() for tensor in model.parameters()}
        if sum(ours.values()) != sum(theirs.values()):
            raise Unfit("it has weights that the fused path does not read")

    def below(self, pack: Pack, layer: int) -> Tensor:
        """Return the states that enter ``layer``, [T, D]."""
        return self.run(self.embed(pack), pack, range(layer))

    def above(
        self,
        states: Tensor,
        pack: Pack,
        layer: int,
        adapter: LoraWeights | None = None,
        *,
        recompute: bool = False,
    ) -> Tensor:
        """Run ``layer`` and all that follow, [N, D]."""
        layers = range(layer, len(self.layers))
        return self.run(states, pack, layers, adapter, recompute=recompute)

    def embed(self, pack: Pack) -> Tensor:
        """Return the states that enter layer 0, [T, D]."""
        return functional.embedding(pack.token_ids, self.embedding)

    def run(
        self,
        states: Tensor,
        pack: Pack,
        layers: range,
        adapter: LoraWeights | None = None,
        *,
        recompute: bool = False,
    ) -> Tensor:
        """Run ``layers`` on ``states`` [T, D].

        After the model's last layer only the places that predict an answer token are left, [N, D]:
        nobody reads the others there, so that layer's MLP is computed for them alone.
        """
        cos, sin = self.rotary(states[None], pack.positions[None])  # [1, T, E] each
        site = _Site(pack, cos[0, :, None], sin[0, :, None])
        for number in layers:
            layer = self.layers[number]
            states = run_layer(self._layer, layer, states, site, adapter, recompute=recompute)
        return states

    def _layer(
        self, layer: Layer, states: Tensor, site: "_Site", adapter: LoraWeights | None
    ) -> Tensor:
        """[T, D] → [T, D], or [N, D] where ``layer`` is the model's last."""
        normed = self._norm(states, layer.attention_norm)
        qkv = self._product(layer, "qkv", normed, adapter)
        mixed = self._attend(qkv, layer.head_norms, site)  # [T, H · E]
        if layer is self.layers[-1]:
            # Behind the last attention no token reads another: only answers are looked at.
            mixed, states = (tensor(Select, x, site.pack.predicting) for x in (mixed, states))
        states = states + self._product(layer, "o", mixed, adapter)
        normed = self._norm(states, layer.mlp_norm)
        inner = tensor(GatedSilu, self._product(layer, "gate_up", normed, adapter))  # [T, F]
        return states + self._product(layer, "down", inner, adapter)

    def _product(self, layer: Layer, key: str, x: Tensor, adapter: LoraWeights | None) -> Tensor:
        weight, bias = layer.products[key], layer.biases[key]
        if adapter is None:
            return functional.linear(x, weight, bias)
        parts = adapter.products.get(f"{layer.name}.{key}", ())
        return tensor(AdaptedProduct, x, adapter.weights, weight, bias, parts, adapter.scale)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return tensor(Norm, x, weight, self.epsilon)

    def _attend(
        self, qkv: Tensor, head_norms: tuple[Tensor, Tensor] | None, site: "_Site"
    ) -> Tensor:
        """[T, (H + 2G) · E] → [T, H · E].

        Tokens of the shared beginning attend to it alone; a row's own tokens to it and to the row's
        own. So its keys and values are computed once and put before those of every row.
        """
        pack = site.pack
        tokens, sizes = qkv.shape[0], [self.heads, self.key_heads, self.key_heads]
        qkv = qkv.view(tokens, sum(sizes), -1)  # [T, H + 2G, E]
        # Queries and keys are turned together, values not: they are the last G.
        turned = qkv[:, : -self.key_heads]
        if head_norms is not None:
            each = zip(torch.split(turned, sizes[:2], dim=1), head_norms, strict=True)
            turned = torch.cat([self._norm(heads, norm) for heads, norm in each], dim=1)
        turned = _rotate(turned, site.cos, site.sin)
        qkv = torch.cat([turned, qkv[:, -self.key_heads :]], dim=1)
        shared, own = qkv[: pack.shared], qkv[pack.shared :]  # [S, …], [T - S, …]
        # Spread and split together: one copy instead of three, forward and backward.
        padded = tensor(Spread, own, pack.spread, pack.collect)  # [B · R, H + 2G, E]
        padded = padded.view(len(pack.rows), -1, *own.shape[1:])  # [B, R, H + 2G, E]
        queries, keys, values = torch.split(padded, sizes, dim=2)
        shared_queries, shared_keys, shared_values = torch.split(shared, sizes, dim=1)
        mixed = _attention(
            queries,  # [B, R, H, E]
            _behind(shared_keys, keys),  # [B, S + R, G, E]
            _behind(shared_values, values),
            pack.mask,
        )
        result = tensor(Select, mixed.flatten(0, 1), pack.collect)  # [T - S, H, E], no padding
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
        loss, correct = apply(AnswerLoss, normed, self._head, pack.targets)
        return loss, int(correct)

    def logprobs(self, states: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each of ``targets`` [N]."""
        logits = self._head(self._norm(states, self.final_norm)).float()
        return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]

    def _head(self, normed: Tensor) -> Tensor:
        """Logits [N, V] of states as they leave the final norm."""
        return functional.linear(normed, self.lm_head)


@dataclass(frozen=True)
class _Site:
    """Where the tokens of one pass stand."""

    pack: Pack
    cos: Tensor
    """[T, 1, E] of each token's rotary position."""
    sin: Tensor


def _misfit(config: Any) -> str | None:
    """Say what of a model's configuration is not computed here."""
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is another architecture"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    # Mistral has a window wherever it has a number, the others where their layers say so.
    layers = set(getattr(config, "layer_types", None) or ())
    windowed = config.model_type == "mistral" and config.sliding_window is not None
    return "its attention has a window" if windowed or layers - {"full_attention"} else None


def _fuse(name: str, layer: Any) -> Layer:
    modules = {key: [layer.get_submodule(n) for n in names] for key, names in PRODUCTS.items()}
    attention = layer.self_attn
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
        head_norms=(attention.q_norm.weight.data.clone(), attention.k_norm.weight.data.clone())
        if hasattr(attention, "q_norm")
        else None,
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
