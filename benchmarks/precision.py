"""Rate of matrix products in bf16 over that in float32, for the shapes of a 135M model.

    python -m benchmarks.precision

Each product is the best of five rounds of twenty, in both precisions in turns. Where the ratio is
far below one, ``shared/processor.py`` should say that the processor has no instructions for bf16.
"""

import time

import torch

from shared.processor import has_instructions_for_bf16

SHAPES = ((512, 576, 1536), (512, 1536, 576), (32, 576, 1536), (1, 576, 1536))
"""Tokens, width in, width out."""
ROUNDS, PRODUCTS = 5, 20


def rate(tokens: int, width: int, out: int, dtype: torch.dtype) -> float:
    """Return operations per second of one linear module."""
    states, weights = torch.randn(tokens, width, dtype=dtype), torch.randn(out, width, dtype=dtype)
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(PRODUCTS):
            torch.nn.functional.linear(states, weights)
        best = min(best, time.perf_counter() - began)
    return 2 * tokens * width * out * PRODUCTS / best


def main() -> None:
    """Print the table."""
    print(f"instructions for bf16: {has_instructions_for_bf16()}")
    for shape in SHAPES:
        own, wide = rate(*shape, torch.bfloat16), rate(*shape, torch.float32)
        print(f"{shape}: bf16 {own / 1e9:.1f}, float32 {wide / 1e9:.1f} GFLOP/s, {own / wide:.2f}")


if __name__ == "__main__":
    main()
