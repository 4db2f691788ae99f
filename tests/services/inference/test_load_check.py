"""What is refused before vLLM reads an adapter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.inference.load_check import AdapterRefused, BaseNotServed, verify_adapter
from shared.catalog import AdapterProfile, load_catalog
from shared.storage import CorruptArtifact, write_manifest
from tests.services.worker.scripted_trainer import MODULE, write_adapter

BASE = "ab" * 32
SHIPPED = load_catalog().get("smollm2-135m-instruct")
ENTRY = SHIPPED.model_copy(update={"weights": {"model.safetensors": BASE}})
PROFILE = ENTRY.profile
A, B = f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"
MODULES = ["model.layers.20.self_attn.q_proj"]


def pair(rank: int = 16, module: str = MODULE) -> dict[str, Any]:
    return {
        f"{module}.lora_A.weight": np.ones((rank, 576), "<f4"),
        f"{module}.lora_B.weight": np.ones((576, rank), "<f4"),
    }


def adapter(
    folder: Path,
    base_sha256: str = BASE,
    tensors: dict[str, Any] | None = None,
    made_for: AdapterProfile = PROFILE,
    **config: Any,
) -> Path:
    settings = {"target_modules": MODULES} | config
    write_adapter(folder / "adapter", pair() if tensors is None else tensors, **settings)
    meta = {"base_sha256": base_sha256, "profile_sha256": made_for.sha256()}
    write_manifest(folder / "adapter", meta)
    return folder / "adapter"


def verify(folder: Path, profile: AdapterProfile = PROFILE) -> None:
    verify_adapter(folder, ENTRY.model_copy(update={"profile": profile}))


def test_an_adapter_inside_the_profile_is_accepted(tmp_path: Path) -> None:
    verify(adapter(tmp_path, rank_pattern={"q_proj": 8}))


@pytest.mark.parametrize("targets", [["q_proj"], "all-linear"])
def test_where_the_targets_are_bare_names_the_tensors_decide(tmp_path: Path, targets: Any) -> None:
    verify(adapter(tmp_path, target_modules=targets))
    elsewhere = pair(module=MODULE.replace("20", "19"))
    with pytest.raises(AdapterRefused, match=r"layers\.19"):
        verify(adapter(tmp_path / "b", tensors=elsewhere, target_modules=targets))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"r": 32}, "rank 32"),
        ({"rank_pattern": {"q_proj": 64}}, "rank 64"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"target_modules": [*MODULES, "model.layers.19.mlp.up_proj"]}, r"layers\.19"),
        ({"target_modules": ["lm_head"]}, "lm_head"),
    ],
)
def test_an_adapter_that_vllm_cannot_serve_is_refused(
    tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        verify(adapter(tmp_path, **config))


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        (pair() | pair(module=MODULE.replace("20", "19")), r"layers\.19"),
        (pair() | {A: np.ones((16, 577), "<f4")}, "lora_A"),
        (pair() | {B: np.ones((576, 17), "<f4")}, "lora_B"),
        (pair() | {f"{MODULE}.lora_embedding_A": np.ones((16, 576), "<f4")}, "embedding"),
        (pair() | {"lm_head.weight": np.ones((2, 576), "<f4")}, "lm_head"),
    ],
    ids=["layer", "inputs", "rank", "side", "module"],
)
def test_a_tensor_that_vllm_would_drop_or_misread_is_refused(
    tmp_path: Path, tensors: dict[str, Any], named: str
) -> None:
    with pytest.raises(AdapterRefused, match=named):
        verify(adapter(tmp_path, tensors=tensors))


@pytest.mark.parametrize(
    ("change", "served"),
    [
        ({"first_trained_layer": 21}, False),
        ({"modules": ("self_attn.k_proj", "self_attn.v_proj")}, False),
        ({"max_rank": 8}, False),
        ({"first_trained_layer": 18}, True),
        ({"modules": ("self_attn.q_proj",)}, True),
        ({"max_rank": 64}, True),
    ],
)
def test_after_the_profile_was_changed_an_adapter_is_served_only_if_all_of_it_still_fits(
    tmp_path: Path, change: dict[str, Any], served: bool
) -> None:
    folder, now = adapter(tmp_path), PROFILE.model_copy(update=change)
    assert now.sha256() != PROFILE.sha256()
    if served:
        verify(folder, now)
    else:
        with pytest.raises(AdapterRefused):
            verify(folder, now)


def test_the_reason_says_that_the_profile_was_changed(tmp_path: Path) -> None:
    folder = adapter(tmp_path, target_modules="all-linear")
    with pytest.raises(AdapterRefused, match="changed since it was trained"):
        verify(folder, PROFILE.model_copy(update={"first_trained_layer": 21}))


def test_an_adapter_of_another_base_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseNotServed, match="another base model"):
        verify(adapter(tmp_path, base_sha256="cd" * 32))


def test_weights_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    write_manifest(folder, {"base_sha256": BASE})
    with pytest.raises(AdapterRefused, match="readable"):
        verify(folder)


def test_an_adapter_with_one_changed_byte_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    with (folder / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    with pytest.raises(CorruptArtifact):
        verify(folder)
