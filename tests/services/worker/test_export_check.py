"""Which folders may be served."""

import numpy as np
import pytest

from services.worker.export_check import InvalidAdapter, check_adapter
from shared.catalog import load_catalog
from tests.services.worker.scripted_trainer import MODULE, export, write_adapter
from tests.services.worker.workshop import BASE

A, B = f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"


def check(folder):
    check_adapter(folder, load_catalog().get(BASE))


def pair(rank=16):
    return {A: np.ones((rank, 576), "<f4"), B: np.ones((576, rank), "<f4")}


def test_a_plain_adapter_inside_the_profile_passes(tmp_path):
    check(export(tmp_path / "a", seed=1, step=1, poison=None))


@pytest.mark.parametrize(
    ("tensors", "config", "reason"),
    [
        (pair() | {A: np.ones((16, 577), "<f4")}, {}, "outside the adapter profile"),
        (pair(32), {"r": 32}, "rank 32"),
        (pair(8), {}, "outside the adapter profile"),
        ({A.replace("layers.20", "layers.19"): pair()[A]}, {}, "outside the adapter profile"),
        ({A: pair()[A]}, {}, "partner"),
        (pair() | {B: np.zeros((576, 16), "<f4")}, {}, "changes nothing"),
        (pair() | {A: np.full((16, 576), np.inf, "<f4")}, {}, "not finite"),
        (pair() | {A: np.ones((16, 576), "<f2")}, {}, "not float32"),
        ({}, {}, "changes nothing"),
        (pair(), {"use_dora": True}, "plain LoRA"),
        (pair(), {"bias": "all"}, "plain LoRA"),
        (pair(), {"modules_to_save": ["lm_head"]}, "plain LoRA"),
        (pair(), {"peft_type": "IA3"}, "plain LoRA"),
    ],
)
def test_anything_else_is_refused_with_its_reason(tmp_path, tensors, config, reason):
    write_adapter(tmp_path / "a", tensors, **config)
    with pytest.raises(InvalidAdapter, match=reason):
        check(tmp_path / "a")


def test_a_pickle_beside_the_weights_is_refused(tmp_path):
    write_adapter(tmp_path / "a", pair())
    (tmp_path / "a" / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InvalidAdapter, match="unexpected"):
        check(tmp_path / "a")


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64])
def test_a_damaged_file_is_refused(tmp_path, damage):
    write_adapter(tmp_path / "a", pair())
    weights = tmp_path / "a" / "adapter_model.safetensors"
    weights.write_bytes(damage)
    with pytest.raises(InvalidAdapter):
        check(tmp_path / "a")


def test_a_truncated_file_is_refused(tmp_path):
    write_adapter(tmp_path / "a", pair())
    weights = tmp_path / "a" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(InvalidAdapter, match="readable"):
        check(tmp_path / "a")
