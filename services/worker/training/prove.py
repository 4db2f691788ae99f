"""``python -m services.worker.training.prove NAME MODELS_DIR FOLDER``: does this base model train?

Leaves in FOLDER an adapter of random weights and what the training path, and PEFT, make of it; the
last line of stdout says by which path. services/worker/prove.py asks vLLM for the same.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from pydantic import TypeAdapter
from torch import Tensor

from services.worker.spec import ServedCheck
from services.worker.training.data import Row
from services.worker.training.decoder import Decoder, load_model
from services.worker.training.evaluate import AdaptedModel, write_served_check
from services.worker.training.lora import LoraWeights, export
from services.worker.training.paths import NotProven, load_decoder
from services.worker.training.prefix import PrefixCache
from services.worker.training.rows import gather
from shared.catalog import BaseModelEntry, load_catalog
from shared.chat.encoder import ChatEncoder, Unmaskable
from shared.evidence.general import general_rows

ADAPTER, CHECKS, BY_PEFT = "adapter", "served_check.json", "by_peft.json"
"""Files in FOLDER."""
SCALE = 0.12
"""Of the random matrices B: changes what the model says, and leaves it sense."""


def prove(entry: BaseModelEntry, models_dir: Path, folder: Path) -> str:
    """Return the proven path; raises NotProven, and Unmaskable for a template that fits no row."""
    base_dir = entry.folder(models_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = load_decoder(base_dir, device, entry.profile.first_trained_layer)
    path = base.path
    _adapt(entry, base, ChatEncoder(base_dir), folder)
    del base  # its memory is needed again
    checks = TypeAdapter(list[ServedCheck]).validate_json((folder / CHECKS).read_bytes())
    wrapped = PeftModel.from_pretrained(load_model(base_dir, device), folder / ADAPTER)
    by_peft = [value for check in checks for value in _logprobs(wrapped, check, device)]
    (folder / BY_PEFT).write_text(json.dumps(by_peft))
    return path


def _adapt(entry: BaseModelEntry, base: Decoder, encoder: ChatEncoder, folder: Path) -> None:
    """Write a random adapter, and what the base with it makes of a few answers."""
    first_layer, numbers = entry.profile.first_trained_layer, entry.defaults
    adapter = LoraWeights(
        base.linears, entry.peft_modules(), rank=numbers.rank, alpha=numbers.alpha, seed=1
    )
    generator = torch.Generator().manual_seed(2)
    tensors = {
        name: SCALE * torch.randn(tensor.shape, generator=generator) if "lora_B" in name else tensor
        for name, tensor in adapter.tensors().items()
    }
    adapter.load(tensors)
    rows = gather(_rows(encoder, entry.context_length), folder)
    cache = PrefixCache(base, rows, first_layer, lambda _done, _all: None, folder)
    model = AdaptedModel(base, first_layer, adapter)
    write_served_check(folder / CHECKS, model, cache, entry.context_length)
    export(folder / ADAPTER, tensors, adapter.config(entry.name))


def _rows(encoder: ChatEncoder, limit: int) -> Iterator[Row]:
    for line, conversation in enumerate(general_rows().conversations, start=1):
        encoded = encoder.encode(conversation, limit)
        token_ids = np.array(encoded.token_ids, dtype=np.int32)
        yield Row(line, token_ids, np.array(encoded.answers, dtype=np.int64))


@torch.no_grad()
def _logprobs(model: Any, check: ServedCheck, device: torch.device) -> list[float]:
    token_ids = torch.tensor(check.token_ids, device=device)
    logits: Tensor = model(token_ids[None]).logits[0, check.answer_start - 1 : -1]
    logprobs = logits.float().log_softmax(-1)
    found: list[float] = logprobs.gather(1, token_ids[check.answer_start :, None])[:, 0].tolist()
    return found


def main() -> None:
    """Prove the base model named on the command line."""
    name, models_dir, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    try:
        entry = load_catalog(models_dir).get(name)
        found = {"path": prove(entry, models_dir, folder)}
    except (NotProven, Unmaskable, ValueError) as reason:
        found = {"refused": str(reason)}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
