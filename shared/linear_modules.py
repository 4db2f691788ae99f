"""The linear modules of a decoder layer: the one place that knows their names, products and sizes.

Llama, Qwen, Mistral and Gemma all name them so. A family that differs is described here.
"""

from typing import Any, Literal, NamedTuple

Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""What the catalog and PEFT call them."""
Width = Literal["hidden", "query", "key_value", "inner"]


class Linear(NamedTuple):
    """One linear module of a layer."""

    path: str
    """Inside its layer, as transformers and PEFT name it."""
    product: str
    """The product that computes it, with others that read the same input: its name in vLLM."""
    inputs: Width
    outputs: Width


LINEARS: dict[Module, Linear] = {
    "q_proj": Linear("self_attn.q_proj", "self_attn.qkv_proj", "hidden", "query"),
    "k_proj": Linear("self_attn.k_proj", "self_attn.qkv_proj", "hidden", "key_value"),
    "v_proj": Linear("self_attn.v_proj", "self_attn.qkv_proj", "hidden", "key_value"),
    "o_proj": Linear("self_attn.o_proj", "self_attn.o_proj", "query", "hidden"),
    "gate_proj": Linear("mlp.gate_proj", "mlp.gate_up_proj", "hidden", "inner"),
    "up_proj": Linear("mlp.up_proj", "mlp.gate_up_proj", "hidden", "inner"),
    "down_proj": Linear("mlp.down_proj", "mlp.down_proj", "inner", "hidden"),
}
"""In the order of the computation, which is also the order inside a product."""


def fused_products() -> dict[str, tuple[str, ...]]:
    """Return the paths of the modules that one product computes, by the product's short name.

    ``{"qkv": ("self_attn.q_proj", …), "o": …, "gate_up": …, "down": …}``
    """
    products: dict[str, tuple[str, ...]] = {}
    for linear in LINEARS.values():
        name = linear.product.rpartition(".")[2].removesuffix("_proj")
        products[name] = (*products.get(name, ()), linear.path)
    return products


def widths(base: dict[str, Any]) -> dict[Width, int]:
    """Return how wide a layer's inputs and outputs are; ``base`` is the model's config.json."""
    hidden, heads = base["hidden_size"], base["num_attention_heads"]
    per_head = base.get("head_dim") or hidden // heads
    return {
        "hidden": hidden,
        "query": heads * per_head,
        "key_value": base["num_key_value_heads"] * per_head,
        "inner": base["intermediate_size"],
    }
