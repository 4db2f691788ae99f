"""Gradients against those that plain PEFT and autograd compute of the same rows, one by one."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from services.worker.spec import TrainerMessage, TrainSpec
from services.worker.training import warm_trainer
from services.worker.training.data import Row, encoded_rows
from services.worker.training.decoder import load_model
from services.worker.training.fused import FusedDecoder
from services.worker.training.loop import CLIP_NORM
from services.worker.training.lora import LoraWeights, export
from services.worker.training.ops import GatedSilu, Norm, Select, Spread
from services.worker.training.optimizer import Optimizer
from services.worker.training.plan import Plan
from shared.chat.encoder import ChatEncoder
from tests.services.worker.training.conftest import Trainer, chat, write_rows
from tests.services.worker.training.packs import (
    CPU,
    disturb,
    gradients,
    make_adapter,
    pack_of,
    rows,
)


def plain_peft(base_dir: Path, adapter: Path, dtype: str = "float32") -> Any:
    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=dtype)
    return PeftModel.from_pretrained(
        base, adapter, is_trainable=True, autocast_adapter_dtype=dtype == "float32"
    )


def summed_loss(model: Any, chosen: Sequence[Row]) -> Tensor:
    """Loss of all answer tokens, by autograd, each row alone."""
    total = torch.zeros(())
    for row in chosen:
        logits = model(torch.tensor(row.token_ids[None])).logits[0].float()
        targets = torch.tensor(row.token_ids[row.answers]).long()
        total = total + torch.nn.functional.cross_entropy(
            logits[row.answers - 1], targets, reduction="sum"
        )
    return total


def named_gradients(model: Any) -> dict[str, Tensor]:
    return {
        name.replace(".default.weight", ".weight"): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def distance(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference in any factor, relative to the largest value of that factor."""
    assert got.keys() == expected.keys()
    return max(
        float((got[name].float() - expected[name].float()).abs().max())
        / float(expected[name].abs().max())
        for name in expected
    )


def relative_error(got: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """Length of the difference of two gradients, relative to the length of the second."""
    assert got.keys() == exact.keys()
    differences = torch.stack([(got[name].float() - exact[name]).norm() for name in exact])
    return float(differences.norm() / torch.stack([one.norm() for one in exact.values()]).norm())


def packed_gradients(base: FusedDecoder, adapter: LoraWeights, chosen: list[Row]) -> float:
    """Leave the gradient of one pack in ``adapter`` and return the loss."""
    pack = pack_of(chosen)
    with torch.no_grad():
        entering = base.run(base.embed(pack), pack, range(2))
    loss, _ = base.answer_loss(base.run(entering, pack, range(2, 4), adapter), pack)
    loss.backward()
    return loss.item()


def test_adapter_gradient_equals_pefts(
    base: FusedDecoder, base_dir: Path, models_dir: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(base, models_dir)
    disturb(adapter)
    export(tmp_path / "adapter", adapter.tensors(), adapter.config("tiny"))
    chosen = rows(9, 5, 17, 8)
    loss = packed_gradients(base, adapter, chosen)
    wrapped = plain_peft(base_dir, tmp_path / "adapter")
    total = summed_loss(wrapped, chosen)
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-6)
    expected = named_gradients(wrapped)
    assert len(expected) == 2 * 7 * 2
    assert distance(gradients(adapter), expected) < 1e-5


def test_bf16_gradient_is_about_as_near_to_the_exact_one_as_autograds(
    base_dir: Path, models_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bf16"
    AutoModelForCausalLM.from_pretrained(base_dir, dtype="bfloat16").save_pretrained(folder)
    adapter = make_adapter(FusedDecoder(load_model(folder, CPU)), models_dir)
    disturb(adapter)
    adapter.weights.data.copy_(adapter.weights.data.bfloat16())  # so that all three have the same
    adapter.refresh()
    export(tmp_path / "adapter", adapter.tensors(), adapter.config("tiny"))
    chosen = rows(9, 5, 17, 8)
    packed_gradients(FusedDecoder(load_model(folder, CPU)), adapter, chosen)
    theirs = {}
    for dtype in ("float32", "bfloat16"):
        wrapped = plain_peft(folder, tmp_path / "adapter", dtype)
        summed_loss(wrapped, chosen).backward()
        theirs[dtype] = named_gradients(wrapped)
    exact = theirs["float32"]
    autograds = relative_error(theirs["bfloat16"], exact)
    assert relative_error(gradients(adapter), exact) < 1.5 * autograds


class _Recorder(Optimizer):
    """Keeps the gradient that each step was given."""

    seen: list[dict[str, Tensor]]

    def step(self, learning_rate: float) -> None:
        self.seen.append(gradients(self._adapter))
        super().step(learning_rate)


@pytest.mark.parametrize("divisor", [1, 16, 64])
def test_a_steps_gradient_is_that_of_its_rows_however_they_are_divided(  # noqa: PLR0917 - fixtures
    trainer: Trainer,
    make_spec: Callable[..., TrainSpec],
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    divisor: int,
) -> None:
    monkeypatch.setattr(_Recorder, "seen", [], raising=False)
    monkeypatch.setattr(warm_trainer, "Optimizer", _Recorder)
    weights = tmp_path / "adapter_model.safetensors"

    def keep(message: TrainerMessage) -> None:
        if message.kind == "checkpoint" and message.step == 3:
            shutil.copyfile(message.path / "adapter.safetensors", weights)

    trainer.on_message = keep
    validation = write_rows(tmp_path / "validation.jsonl", [chat("q", "a")])
    spec = make_spec(n_epochs=1, validation_rows=validation, micro_batch_divisor=divisor)
    done = trainer.train(spec)
    shutil.copyfile(done.adapter_dir / "adapter_config.json", tmp_path / "adapter_config.json")
    every = list(encoded_rows(spec.train_rows, ChatEncoder(tiny), 256, "training_file"))
    members = [every[number] for number in Plan(24, 4, 1, spec.seed).batch(4)]
    wrapped = plain_peft(tiny, tmp_path)
    answers = sum(len(row.answers) for row in members)
    (summed_loss(wrapped, members) / answers).backward()
    torch.nn.utils.clip_grad_norm_(wrapped.parameters(), CLIP_NORM)
    assert distance(_Recorder.seen[3], named_gradients(wrapped)) < 1e-5


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
