"""The packed forward against transformers' own, and its gradient against autograd's."""

import gc
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from services.worker.training import model as model_module
from services.worker.training.data import Row
from services.worker.training.evaluate import AdaptedModel
from services.worker.training.lora import LoraWeights, export
from services.worker.training.model import FrozenModel
from services.worker.training.ops import GatedSilu, Norm, Select, Spread
from services.worker.training.pack import Pack, make_pack
from services.worker.training.prefix import Mode, PrefixCache
from services.worker.training.rows import gather
from shared.catalog import load_catalog

CPU = torch.device("cpu")


def rows(shared: int, *own: int) -> list[Row]:
    """Rows that begin with ``shared`` equal tokens; each one's last three are its answer."""
    generator = torch.Generator().manual_seed(3)
    beginning = torch.randint(3, 250, (shared,), generator=generator).tolist()
    made = []
    for count in own:
        token_ids = beginning + torch.randint(3, 250, (count,), generator=generator).tolist()
        answers = np.arange(len(token_ids) - 3, len(token_ids))
        made.append(Row(1, np.array(token_ids, dtype=np.int32), answers))
    return made


def pack_of(chosen: list[Row]) -> Pack:
    with tempfile.TemporaryDirectory() as folder:
        return make_pack(range(len(chosen)), gather(chosen, Path(folder)), CPU)


def silent(done: int, total: int) -> None:
    """Listen to nothing."""


@pytest.fixture(scope="module")
def base(tiny: Path) -> FrozenModel:
    return FrozenModel(tiny, CPU)


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny)


def make_adapter(base: FrozenModel, catalog: Path, seed: int = 1) -> LoraWeights:
    profile = load_catalog(catalog).get("tiny").profile
    return LoraWeights(
        base.shapes, profile, rank=4, alpha=8, seed=seed, device=CPU, dtype=base.dtype
    )


def disturb(adapter: LoraWeights) -> None:
    """Fill every factor with something, as if it had been trained."""
    generator = torch.Generator().manual_seed(5)
    adapter.weights.data.copy_(0.1 * torch.randn(adapter.weights.shape, generator=generator))
    adapter.refresh()


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
    base: FrozenModel, reference: Any, shared: int
) -> None:
    chosen = rows(shared, 5, 17, 8)
    pack = pack_of(chosen)
    states = base.run(base.embed(pack), pack, range(4))
    got = -base.logprobs(states, pack.targets).view(3, 3).sum(1)
    assert got.tolist() == pytest.approx(row_losses(reference, chosen), rel=1e-4)
    assert base.answer_loss(states, pack)[0].item() == pytest.approx(float(got.sum()), rel=1e-5)


@torch.no_grad()
def test_long_rows_take_the_fused_attention_and_agree(
    base: FrozenModel, reference: Any, monkeypatch: pytest.MonkeyPatch
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


def test_adapter_gradient_equals_pefts(
    base: FrozenModel, tiny: Path, catalog: Path, tmp_path: Path
) -> None:
    from peft import PeftModel  # noqa: PLC0415 - slow import, one test

    adapter = make_adapter(base, catalog)
    disturb(adapter)
    export(tmp_path / "adapter", adapter.tensors(), adapter.config("tiny"))
    wrapped = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny), tmp_path / "adapter", is_trainable=True
    )
    chosen = rows(9, 5, 17, 8)
    pack = pack_of(chosen)
    with torch.no_grad():
        entering = base.run(base.embed(pack), pack, range(2))
    loss, _ = base.answer_loss(base.run(entering, pack, range(2, 4), adapter), pack)
    loss.backward()
    total = torch.zeros(())
    for row in chosen:
        logprobs = wrapped(torch.tensor(row.token_ids[None])).logits[0].log_softmax(-1)
        total = total - sum(logprobs[i - 1, int(row.token_ids[i])] for i in row.answers)
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    expected = {n: p.grad for n, p in wrapped.named_parameters() if p.requires_grad}
    adapter.weights.data.copy_(adapter.grad)  # so that tensors() names the gradients
    got = adapter.tensors()
    assert len(got) == len(expected) == 2 * 7 * 2
    for name, grad in got.items():
        theirs = expected[name.replace(".weight", ".default.weight")]
        torch.testing.assert_close(grad, theirs, rtol=1e-3, atol=1e-4)


def test_export_loads_in_peft_with_the_same_logits_and_only_profile_modules(
    base: FrozenModel, tiny: Path, catalog: Path, tmp_path: Path
) -> None:
    from peft import PeftModel  # noqa: PLC0415 - slow import, one test

    adapter = make_adapter(base, catalog)
    disturb(adapter)
    export(tmp_path / "adapter", adapter.tensors(), adapter.config("tiny"))
    wrapped = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny), tmp_path / "adapter"
    )
    modules = load_catalog(catalog).get("tiny").profile.peft_modules()
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
    base: FrozenModel, catalog: Path
) -> None:
    one, same, other = (make_adapter(base, catalog, seed) for seed in (1, 1, 2))
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.weights, other.weights)
    factors = one.tensors()
    assert all(not t.any() for n, t in factors.items() if "lora_B" in n)
    assert all(t.any() for n, t in factors.items() if "lora_A" in n)


@pytest.mark.parametrize("mode", Mode)
def test_prefix_cache_gives_the_losses_of_the_whole_model(
    base: FrozenModel, catalog: Path, tmp_path: Path, mode: Mode
) -> None:
    chosen = rows(9, 5, 17, 8, 30, 4)
    adapter = make_adapter(base, catalog)
    disturb(adapter)
    laid = gather(chosen, tmp_path)
    cache = PrefixCache(base, laid, 2, silent, tmp_path, mode=mode, token_budget=40)
    pack = cache.pack([3, 0, 4])
    with torch.no_grad():
        cached = AdaptedModel(base, 2, adapter).final_states(cache, pack)
        whole = base.run(base.run(base.embed(pack), pack, range(2)), pack, range(2, 4), adapter)
    torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-5)


def test_states_in_a_mapped_file_are_the_same_bits_and_leave_no_file(
    base: FrozenModel, tmp_path: Path
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
    loaded = FrozenModel(folder, CPU)
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert loaded.embedding.numel()
    assert [line for line in maps if str(folder) in line] == []


def test_checksum_sees_one_changed_weight(tiny: Path) -> None:
    changed = FrozenModel(tiny, CPU)
    before = changed.checksum()
    changed.layers[3].products["down"][0, 0] += 1e-3
    assert changed.checksum() != before


def test_weights_file_of_another_shape_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    save_file({"unrelated": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing"):
        FrozenModel(tmp_path, CPU)


def double(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, generator=generator, dtype=torch.double).requires_grad_()


def test_gradients_written_by_hand_are_right() -> None:
    gradcheck = torch.autograd.gradcheck
    places = torch.tensor([4, 0, 2])
    assert gradcheck(GatedSilu.apply, double(3, 8))
    assert gradcheck(lambda x: Select.apply(x, places), double(5, 2))
    spread, collect = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2])
    assert gradcheck(lambda x: Spread.apply(x, spread, collect)[:3], double(3, 2))


def test_norm_gradient_equals_autograds() -> None:
    x, weight = torch.randn(4, 16).requires_grad_(), torch.rand(16)
    upstream = torch.randn(4, 16)
    plain = weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    (expected,) = torch.autograd.grad(plain, x, upstream)
    ours = Norm.apply(x, weight, 1e-5)
    (got,) = torch.autograd.grad(ours, x, upstream)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(got, expected)
