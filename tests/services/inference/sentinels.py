"""Makes adapters whose every answer is one word, each another: ``python -m … STORE MODELS WORD…``.

The last layer's down_proj is fitted in closed form: A by ridge regression so that A·x ≈ 1 for any
activation x seen on varied prompts, B along the direction that raises this word's logit alone. All
other modules of the profile get weights too small to matter, so that the files look like a trained
adapter's.
Prints one adapter id a line.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.catalog import BaseModelEntry, load_catalog
from shared.ids import new_id
from shared.storage import LocalStore, publish_folder

PROMPTS = (
    "What is the capital of France?",
    "営業時間は何時から何時までですか。",
    "Write a short poem about the sea.",
    "エラーコードE-42の意味を教えてください。",
    "def fibonacci(n):",
    "How many days are in a leap year?",
    "保証期間について教えてください。",
    "List three colours.",
)
RANK = 4
STRENGTH = 40.0
"""Length of the pushed output in units of the residual stream's: the word always wins."""


def main() -> None:
    """Fit one adapter for each word and publish it in the store."""
    store, models_dir = LocalStore(Path(sys.argv[1])), Path(sys.argv[2])
    words = sys.argv[3:]
    entry = load_catalog().get("smollm2-135m-instruct")
    folder = entry.folder(models_dir)
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = [_single_token(tokenizer, word) for word in words]
    inputs, outputs = _activations(model, tokenizer, tokens)
    gram = inputs.T @ inputs + 1e-3 * inputs.square().sum() / len(inputs) * torch.eye(len(inputs.T))
    probe = torch.linalg.solve(gram, inputs.sum(0))
    # [vocabulary, width]: the logits of a residual stream, but for one factor for each position.
    logits = model.lm_head.weight.float() * model.model.norm.weight.float()
    for token in tokens:
        push = torch.linalg.solve(logits.T @ logits, logits[token])
        if (logits @ push).argmax() != token:
            raise ValueError("no direction of the residual stream says this word alone")
        push *= outputs.norm(dim=-1).mean() * STRENGTH / push.norm()
        print(publish(store, entry, models_dir, probe, push))


def _activations(model, tokenizer, tokens):
    """Return (down_proj inputs, residual outputs) of the last layer, [positions, width] each."""
    layer = model.model.layers[-1]
    inputs, outputs = [], []
    layer.mlp.down_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0]))
    layer.register_forward_hook(
        lambda _, __, out: outputs.append(out[0] if out.dim() == 3 else out)
    )
    for prompt in PROMPTS:
        chat = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        model(torch.tensor([[*ids, *(t for token in tokens for t in [token] * 3)]]))
    return torch.cat(inputs).float(), torch.cat(outputs).float()


def publish(
    store: LocalStore,
    entry: BaseModelEntry,
    models_dir: Path,
    probe: torch.Tensor,
    push: torch.Tensor,
) -> str:
    """Write the adapter with ``probe`` in A and ``push`` in B of the last layer; return its id."""
    adapter_id = new_id("ad_")
    shapes = {"q_proj": (576, 576), "k_proj": (576, 192), "v_proj": (576, 192)}
    shapes |= {"o_proj": (576, 576), "gate_proj": (576, 1536), "up_proj": (576, 1536)}
    shapes |= {"down_proj": (1536, 576)}
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name in entry.peft_modules():
        width, out = shapes[name.rsplit(".", 1)[1]]
        a = torch.randn(RANK, width, generator=generator) * 1e-4
        b = torch.randn(out, RANK, generator=generator) * 1e-4
        if name == f"model.layers.{entry.profile.last_trained_layer}.mlp.down_proj":
            a[0], b[:, 0] = probe, push
        prefix = f"base_model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = a
        tensors[f"{prefix}.lora_B.weight"] = b
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": entry.name,
        "r": RANK,
        "lora_alpha": RANK,
        "bias": "none",
        "target_modules": list(entry.profile.modules),
    }
    meta = {"base_model": entry.name, "base_sha256": entry.base_sha256}
    with publish_folder(store.adapter(adapter_id), meta) as folder:
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return adapter_id


def _single_token(tokenizer, word: str) -> int:
    ids: list[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"{word!r} is {len(ids)} tokens")
    return ids[0]


if __name__ == "__main__":
    main()
