"""The catalog's adapter profile speaks PEFT's and vLLM's names of the same modules."""

import pytest

from shared.catalog import load_catalog
from shared.errors import NotFound


def test_demo_model_trains_the_last_ten_layers_under_packed_runtime_names():
    profile = load_catalog().get("smollm2-135m-instruct").profile
    assert list(profile.trained_layers) == list(range(20, 30))
    assert profile.runtime_modules()[:4] == [
        "model.layers.20.self_attn.qkv_proj",
        "model.layers.20.self_attn.o_proj",
        "model.layers.20.mlp.gate_up_proj",
        "model.layers.20.mlp.down_proj",
    ]
    assert len(profile.runtime_modules()) == 40
    assert len(profile.peft_modules()) == 70


def test_a_base_model_outside_the_catalog_is_not_found():
    with pytest.raises(NotFound) as caught:
        load_catalog().get("gpt-4")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_what_auto_asks_for_is_within_every_models_profile():
    for entry in load_catalog():
        assert entry.defaults.rank <= entry.profile.max_rank, entry.name
        assert entry.profile.trained_layers, entry.name
        assert entry.profile.modules, entry.name


def test_weights_are_intact_only_when_their_hash_is_the_catalogs(tmp_path):
    entry = load_catalog().get("smollm2-135m-instruct")
    assert not entry.weights_intact(tmp_path)
    entry.folder(tmp_path).mkdir()
    (entry.folder(tmp_path) / "model.safetensors").write_bytes(b"other weights")
    assert not entry.weights_intact(tmp_path)
