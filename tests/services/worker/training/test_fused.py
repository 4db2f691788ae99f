"""The packed forward against transformers' own, for both kinds of decoder."""

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from services.worker.training import fused as model_module
from services.worker.training.data import Row
from services.worker.training.decoder import load_model
from services.worker.training.evaluate import AdaptedModel
from services.worker.training.fused import FusedDecoder
from services.worker.training.lora import export
from services.worker.training.prefix import Mode, PrefixCache
from services.worker.training.rows import gather
from shared.catalog import load_catalog
from tests.services.worker.training.packs import CPU, disturb, make_adapter, pack_of, rows


def silent(done: int, total: int) -> None:
    """Listen to nothing."""


@pytest.fixture(scope="module")
def reference(base_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base_dir)


def row_losses(reference: Any, chosen: list[Row]) -> list[float]:
    """Summed answer loss of each row alone, by transformers."""
    losses = []
    for row in chosen:
        logprobs = reference(torch.tensor(row.token_ids[None])).logits[0].log_softmax(-1)
        losses.append(-float(sum(logprobs[i - 1, int(row.token_ids[i])] for i in row.answers)))
    return losses


@pytest.mark.parametrize("shared", [0, 1, 9])
@torch.no_grad()
def test_packed_rows_have_the_losses_they_have_alone(
    base: FusedDecoder, reference: Any, shared: int
) -> None:
    chosen = rows(shared, 5, 17, 8)
    pack = pack_of(chosen)
    states = base.run(base.embed(pack), pack, range(4))
    got = -base.logprobs(states, pack.targets).view(3, 3).sum(1)
    assert got.tolist() == pytest.approx(row_losses(reference, chosen), rel=1e-4)
    assert base.answer_loss(states, pack)[0].item() == pytest.approx(float(got.sum()), rel=1e-5)


@torch.no_grad()
def test_long_rows_take_the_fused_attention_and_agree(
    base: FusedDecoder, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "SHORT_KEYS", 4)
    chosen = rows(6, 5, 17, 8)
    pack = pack_of(chosen)
    states = base.run(base.embed(pack), pack, range(4))
    got = -base.logprobs(states, pack.targets).view(3, 3).sum(1)
    assert got.tolist() == pytest.approx(row_losses(reference, chosen), rel=1e-4)


def test_common_beginning_is_computed_once() -> None:
    pack = pack_of(rows(9, 5, 17, 8))
    assert pack.shared == 9
    assert len(pack.token_ids) == 9 + 5 + 17 + 8
    assert pack.row_tokens == 3 * 9 + 5 + 17 + 8


def test_equal_rows_share_nothing_that_predicts_an_answer() -> None:
    row = rows(0, 10)[0]
    pack = pack_of([row, row])
    assert pack.shared == row.answers[0] - 1
    assert len(set(pack.predicting.tolist())) == 6


def test_export_loads_in_peft_with_the_same_logits_and_only_profile_modules(
    base: FusedDecoder, base_dir: Path, models_dir: Path, tmp_path: Path
) -> None:
    from peft import PeftModel  # noqa: PLC0415 - slow import, one test

    adapter = make_adapter(base, models_dir)
    disturb(adapter)
    export(tmp_path / "adapter", adapter.tensors(), adapter.config("tiny"))
    wrapped = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base_dir), tmp_path / "adapter"
    )
    modules = load_catalog(models_dir).get("tiny").peft_modules()
    names = {f"base_model.model.{m}.lora_{ab}.weight" for m in modules for ab in "AB"}
    assert set(adapter.tensors()) == names
    chosen = rows(4, 9, 12)
    pack = pack_of(chosen)
    with torch.no_grad():
        states = base.run(base.embed(pack), pack, range(2))
        states = base.run(states, pack, range(2, 4), adapter)
        got = -base.logprobs(states, pack.targets).view(2, 3).sum(1)
        assert got.tolist() == pytest.approx(row_losses(wrapped, chosen), rel=1e-4)


def test_adapter_starts_as_the_base_and_from_the_seed_alone(
    base: FusedDecoder, models_dir: Path
) -> None:
    one, same, other = (make_adapter(base, models_dir, seed) for seed in (1, 1, 2))
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.weights, other.weights)
    factors = one.tensors()
    assert all(not t.any() for n, t in factors.items() if "lora_B" in n)
    assert all(t.any() for n, t in factors.items() if "lora_A" in n)


@pytest.mark.parametrize("mode", Mode)
def test_prefix_cache_gives_the_losses_of_the_whole_model(
    base: FusedDecoder, models_dir: Path, tmp_path: Path, mode: Mode
) -> None:
    chosen = rows(9, 5, 17, 8, 30, 4)
    adapter = make_adapter(base, models_dir)
    disturb(adapter)
    laid = gather(chosen, tmp_path)
    cache = PrefixCache(base, laid, 2, silent, tmp_path, mode=mode, token_budget=40)
    pack = cache.pack([3, 0, 4])
    with torch.no_grad():
        cached = AdaptedModel(base, 2, adapter).final_states(cache, pack)
        whole = base.run(base.run(base.embed(pack), pack, range(2)), pack, range(2, 4), adapter)
    torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-5)


def test_states_in_a_mapped_file_are_the_same_bits_and_leave_no_file(
    base: FusedDecoder, tmp_path: Path
) -> None:
    chosen = gather(rows(9, 5, 17, 8, 12), tmp_path)
    memory, mapped = (
        PrefixCache(base, chosen, 2, silent, tmp_path, mode=mode, token_budget=40)
        for mode in (Mode.MEMORY, Mode.FILE)
    )
    for members in ([3, 0], [1, 2, 0], [2]):  # a file's groups are computed when asked for
        pack = memory.pack(members)
        assert torch.equal(memory.states(pack), mapped.states(pack))
    assert list(tmp_path.iterdir()) == []


def test_the_weights_file_is_not_kept_in_memory_beside_the_model(
    tiny: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "base")  # other tests may hold the shared one
    loaded = FusedDecoder(load_model(folder, CPU))
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert loaded.embedding.numel()
    assert [line for line in maps if str(folder) in line] == []


def test_checksum_sees_one_changed_weight_or_bias(tiny_qwen2: Path) -> None:
    changed = FusedDecoder(load_model(tiny_qwen2, CPU))
    bias = changed.layers[3].biases["qkv"]
    assert bias is not None
    seen = [changed.checksum()]
    for tensor in (changed.layers[3].products["down"][0], bias, changed.lm_head[0]):
        tensor[0] += 1e-3
        seen.append(changed.checksum())
    assert len(set(seen)) == 4


def test_weights_file_of_another_shape_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    save_file({"unrelated": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing"):
        FusedDecoder(load_model(tmp_path, CPU))
