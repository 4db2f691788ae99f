"""The training path for a base model, chosen by proof on its very weights.

A path is believed when it has given the log-probabilities that transformers gives: of rows of
several lengths that begin alike, so that what is shared, packed and padded is part of the proof,
and in two parts, below and above the first trained layer, so that leaving layers out is, too.
"""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from services.worker.training.decoder import Decoder, load_model
from services.worker.training.fused import FusedDecoder, Unfit
from services.worker.training.generic import GenericDecoder
from services.worker.training.pack import make_pack
from services.worker.training.rows import TokenRows
from shared.telemetry import log_event

_logger = logging.getLogger(__name__)

LENGTHS = (64, 41, 30, 23)
"""Tokens of the rows that are asked; they fit any context."""
ALIKE = 12
"""Tokens that all of them begin with."""
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.25, torch.float16: 0.05}
"""Mean absolute difference of log-probabilities. Rounding stays below: in bf16 SmolLM2-135M is off
by 0.08 on the fused path, by 0.02 on the generic one. Other arithmetic is far above: 1.4 without
rotary positions, 1.2 with another epsilon in its norms, 8 without its last layer."""


class NotProven(Exception):
    """No path computes what transformers computes; says which figure was off."""


def load_decoder(folder: Path, device: torch.device, first_layer: int) -> Decoder:
    """Load the base model in ``folder`` on the fastest path that is proven on it.

    Raises NotProven where none is, and ValueError where weights are missing.
    """
    began = time.monotonic()
    model = load_model(folder, device)
    rows = probe(model.get_input_embeddings().num_embeddings)
    expected = reference(model, rows)
    decoder: Decoder
    try:
        decoder, reason = FusedDecoder(model), None
        _prove(decoder, rows, expected, first_layer)
    except (Unfit, NotProven) as misfit:
        decoder, reason = GenericDecoder(model), str(misfit)
        _prove(decoder, rows, expected, first_layer)
    data = {"path": decoder.path, "reason": reason, "seconds": round(time.monotonic() - began, 1)}
    _logger.info("the base model is loaded", extra=log_event("base_loaded", **data))
    return decoder


def _prove(decoder: Decoder, rows: TokenRows, expected: Tensor, first_layer: int) -> None:
    off = deviation(decoder, rows, expected, first_layer)
    if off > TOLERANCE[decoder.linears.dtype]:
        raise NotProven(
            f"The {decoder.path} training path does not compute this base model: its "
            f"log-probabilities are off by {off:.2g} on average."
        )


def probe(vocabulary: int) -> TokenRows:
    """Return rows of random token ids; all but what they begin with is their answer."""
    generator = np.random.default_rng(1)
    alike = generator.integers(vocabulary, size=ALIKE)
    rows = [
        np.concatenate([alike, generator.integers(vocabulary, size=length - ALIKE)])
        for length in LENGTHS
    ]
    return TokenRows(
        token_ids=np.concatenate(rows).astype(np.int32),
        answers=np.concatenate([np.arange(length) > ALIKE for length in LENGTHS]),
        lengths=np.array(LENGTHS, dtype=np.int64),
        lines=np.arange(1, len(LENGTHS) + 1),
        sha256="",
    )


@torch.no_grad()
def reference(model: Any, rows: TokenRows) -> Tensor:
    """Log-probabilities [N] of all answers, each row alone, as transformers computes them."""
    found = []
    for row in rows:
        token_ids = torch.from_numpy(row.token_ids.astype(np.int64)).to(model.device)
        logits = model(input_ids=token_ids[None], use_cache=False).logits[0].float()
        answers = torch.from_numpy(row.answers).to(model.device)
        logprobs = logits[answers - 1].log_softmax(-1)
        found.append(logprobs.gather(1, token_ids[answers][:, None])[:, 0])
    return torch.cat(found)


@torch.no_grad()
def deviation(decoder: Decoder, rows: TokenRows, expected: Tensor, first_layer: int) -> float:
    """Mean absolute difference of ``decoder``'s log-probabilities from the ``expected`` ones."""
    device, share = decoder.linears.device, decoder.shares_beginnings
    pack = make_pack(range(len(rows)), rows, device, share=share)
    states = decoder.above(decoder.below(pack, first_layer), pack, first_layer)
    difference = (decoder.logprobs(states, pack.targets) - expected).abs().mean()
    return float(difference.nan_to_num(float("inf")))
