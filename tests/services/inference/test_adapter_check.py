"""What is refused before vLLM reads an adapter."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.inference.adapter_check import AdapterRefused, verify_adapter
from shared.catalog import load_catalog
from shared.storage import CorruptArtifact, publish_folder

BASE = "ab" * 32
PROFILE = load_catalog().get("smollm2-135m-instruct").profile


def adapter(folder: Path, base_sha256: str = BASE, **config: Any) -> Path:
    with publish_folder(folder / "adapter", {"base_sha256": base_sha256}) as filling:
        (filling / "adapter_config.json").write_text(json.dumps({"r": 16, "bias": "none"} | config))
        (filling / "adapter_model.safetensors").write_bytes(b"weights")
    return folder / "adapter"


def test_an_adapter_inside_the_profile_is_accepted(tmp_path: Path) -> None:
    verify_adapter(adapter(tmp_path, rank_pattern={"q_proj": 8}), BASE, PROFILE)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"r": 32}, "rank 32"),
        ({"rank_pattern": {"q_proj": 64}}, "rank 64"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
    ],
)
def test_an_adapter_that_vllm_cannot_serve_is_refused(
    tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        verify_adapter(adapter(tmp_path, **config), BASE, PROFILE)


def test_an_adapter_of_another_base_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="another base model"):
        verify_adapter(adapter(tmp_path, base_sha256="cd" * 32), BASE, PROFILE)


def test_an_adapter_with_one_changed_byte_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    (folder / "adapter_model.safetensors").write_bytes(b"weightz")
    with pytest.raises(CorruptArtifact):
        verify_adapter(folder, BASE, PROFILE)
