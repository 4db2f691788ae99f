"""The generic path on many architectures: transformers' figures, PEFT's gradients, whole jobs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from services.worker.training import fused, paths
from services.worker.training.decoder import load_model
from services.worker.training.fused import FusedDecoder
from services.worker.training.generic import GenericDecoder
from services.worker.training.lora import LoraWeights, export
from services.worker.training.pack import Pack, make_pack
from services.worker.training.paths import NotProven, load_decoder
from services.worker.training.rows import gather
from shared.processor import has_instructions_for_bf16
from tests.services.worker.training.architectures import ARCHITECTURES, build
from tests.services.worker.training.attempts import MakeSpec, bytes_of, interrupt
from tests.services.worker.training.conftest import Trainer, describe, save_tokenizer
from tests.services.worker.training.packs import CPU, disturb, gradients, rows
from tests.services.worker.training.test_gradients import (
    distance,
    named_gradients,
    plain_peft,
    summed_loss,
)

FUSED = {"llama", "qwen2", "qwen3"}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of each architecture, its weights in several files."""
    return build(request.param, tmp_path_factory.mktemp("bases") / request.param)


def padded(tmp_path: Path) -> Pack:
    chosen = gather(rows(9, 5, 17, 8), tmp_path)
    return make_pack(range(3), chosen, CPU, share=False)


def modules(decoder: GenericDecoder | FusedDecoder, layers: range) -> list[str]:
    """Every linear module of ``layers``."""
    places = tuple(f".layers.{number}." for number in layers)
    return [name for name in decoder.linears.shapes if any(place in name for place in places)]


def adapter_of(decoder: GenericDecoder | FusedDecoder, layers: range) -> LoraWeights:
    adapter = LoraWeights(decoder.linears, modules(decoder, layers), rank=4, alpha=8, seed=1)
    disturb(adapter)
    return adapter


def test_weights_lie_in_several_files(folder: Path) -> None:
    assert len(list(folder.glob("*.safetensors"))) > 3


def test_the_proven_path_is_taken(folder: Path) -> None:
    decoder = load_decoder(folder, CPU, 2)
    assert decoder.path == ("fused" if folder.name in FUSED else "generic")


@torch.no_grad()
def test_leaving_the_frozen_layers_out_changes_no_bit(folder: Path, tmp_path: Path) -> None:
    model, pack = load_model(folder, CPU), padded(tmp_path)
    computed: list[str] = []
    for name, module in model.named_modules():
        if re.search(r"\.layers\.\d\.", name):
            module.register_forward_hook(lambda *_, name=name: computed.append(name))
    decoder = GenericDecoder(model)
    whole = decoder.above(decoder.below(pack, 0), pack, 0)
    for layer in (1, 3):
        computed.clear()
        entering = decoder.below(pack, layer)
        assert layers_in(computed) == set(range(layer))
        computed.clear()
        assert torch.equal(decoder.above(entering, pack, layer), whole)
        assert layers_in(computed) == set(range(layer, 4))


def layers_in(names: list[str]) -> set[int]:
    return {int(re.findall(r"\.layers\.(\d)\.", name)[0]) for name in names}


@pytest.mark.parametrize("layers", [range(2, 4), range(1, 3)], ids=["upper", "middle"])
def test_gradients_and_export_are_pefts(folder: Path, tmp_path: Path, layers: range) -> None:
    decoder, pack = load_decoder(folder, CPU, layers.start), padded(tmp_path)
    assert isinstance(decoder, (GenericDecoder, FusedDecoder))
    adapter = adapter_of(decoder, layers)
    export(tmp_path / "adapter", adapter.tensors(), adapter.config("any"))
    with torch.no_grad():
        entering = decoder.below(pack, layers.start)
    loss, _ = decoder.answer_loss(decoder.above(entering, pack, layers.start, adapter), pack)
    loss.backward()
    wrapped = plain_peft(folder, tmp_path / "adapter")
    total = summed_loss(wrapped, rows(9, 5, 17, 8))
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    expected = named_gradients(wrapped)
    assert len(expected) == 2 * len(modules(decoder, layers))
    assert distance(gradients(adapter), expected) < 1e-4


@pytest.mark.parametrize("made", [GenericDecoder, FusedDecoder])
def test_computing_again_keeps_less_and_gives_the_same_bits(
    made: type[GenericDecoder | FusedDecoder], tmp_path: Path
) -> None:
    decoder, pack = made(load_model(build("llama", tmp_path / "base"), CPU)), padded(tmp_path)
    adapter = adapter_of(decoder, range(1, 4))
    with torch.no_grad():
        entering = decoder.below(pack, 1)
    kept: list[int] = []

    def keep(saved: Tensor) -> Tensor:
        kept[-1] += saved.numel()
        return saved

    found = []
    for recompute in (False, True):
        kept.append(0)
        adapter.grad.zero_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            states = decoder.above(entering, pack, 1, adapter, recompute=recompute)
        loss, _ = decoder.answer_loss(states, pack)
        loss.backward()
        found.append((loss.detach(), adapter.grad.clone()))
    assert kept[1] < kept[0] / 4
    assert all(torch.equal(*each) for each in zip(*found, strict=True))


def test_an_adapter_is_only_there_where_it_is_asked_for(tmp_path: Path) -> None:
    decoder = GenericDecoder(load_model(build("gemma3_text", tmp_path / "base"), CPU))
    pack, adapter = padded(tmp_path), adapter_of(decoder, range(2, 4))
    with torch.no_grad():
        entering = decoder.below(pack, 2)
        plain, adapted, again = (
            decoder.above(entering, pack, 2, each) for each in (None, adapter, None)
        )
        seen = decoder.below(pack, 3)
        decoder.above(entering, pack, 2, adapter)
        assert torch.equal(decoder.below(pack, 3), seen)
    assert torch.equal(plain, again)
    assert not torch.equal(plain, adapted)


@pytest.mark.parametrize("kind", ["granite", "smollm3"])
def test_another_arithmetic_slipped_into_the_fused_path_is_found(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their modules are called as Llama's are, and hold nothing more."""
    monkeypatch.setattr(fused, "FAMILIES", fused.FAMILIES | {kind})
    folder = build(kind, tmp_path)
    FusedDecoder(load_model(folder, CPU))  # sees nothing wrong
    assert load_decoder(folder, CPU, 2).path == "generic"


def test_a_window_that_no_probe_is_long_enough_to_see_is_not_fused(tmp_path: Path) -> None:
    assert load_decoder(build("mistral", tmp_path, sliding_window=128), CPU, 2).path == "generic"
    without = build("mistral", tmp_path / "without", sliding_window=None)
    assert load_decoder(without, CPU, 2).path == "fused"


def test_weights_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    folder = build("qwen3", tmp_path)
    config = folder / "config.json"
    text = config.read_text().replace('"qwen3"', '"llama"').replace("Qwen3For", "LlamaFor")
    config.write_text(text)
    with pytest.raises(ValueError, match=r"no place for .*_norm"):
        load_decoder(folder, CPU, 2)


def test_a_base_that_no_path_computes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build("gemma2", tmp_path)
    monkeypatch.setattr(paths, "TOLERANCE", {torch.float32: 0})
    with pytest.raises(NotProven, match="generic training path"):
        load_decoder(folder, CPU, 2)


def test_a_job_on_the_generic_path_resumes_to_the_same_bits_and_is_pefts(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    words = save_tokenizer(folder)
    build("gemma3_text", folder, vocab_size=words)
    describe(folder)
    trainer = Trainer(tmp_path)

    def spec(attempt: int, *resume_from: Path) -> Any:
        return make_spec(attempt, base_dir=folder, resume_from=resume_from, n_epochs=2)

    unbroken = trainer.train(spec(1))
    assert unbroken.history[-1].train_loss < unbroken.history[0].train_loss

    interrupt(trainer, spec(2), 4)
    resumed = trainer.train(spec(3, spec(2).attempt_dir))
    assert resumed.steps_this_attempt < unbroken.steps_this_attempt
    assert bytes_of(resumed.adapter_dir) == bytes_of(unbroken.adapter_dir)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), unbroken.adapter_dir)


def test_torch_says_the_same_of_the_processor_as_we_do() -> None:
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() is has_instructions_for_bf16()
