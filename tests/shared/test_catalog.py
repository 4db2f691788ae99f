"""The catalog's adapter profile speaks PEFT's and vLLM's names of the same modules."""

import hashlib
from typing import Any

import pytest

from shared.catalog import (
    DESCRIPTION,
    PROOF,
    BadDescription,
    BaseModelEntry,
    Proof,
    load_catalog,
    write_proof,
)
from shared.errors import NotFound

SHIPPED = load_catalog().get("smollm2-135m-instruct")


def test_demo_model_trains_the_last_ten_layers_under_packed_runtime_names():
    assert list(SHIPPED.profile.trained_layers) == list(range(20, 30))
    assert SHIPPED.runtime_modules()[:4] == [
        "model.layers.20.self_attn.qkv_proj",
        "model.layers.20.self_attn.o_proj",
        "model.layers.20.mlp.gate_up_proj",
        "model.layers.20.mlp.down_proj",
    ]
    assert len(SHIPPED.runtime_modules()) == 40
    assert len(SHIPPED.peft_modules()) == 70


def test_a_base_model_outside_the_catalog_is_not_found():
    with pytest.raises(NotFound) as caught:
        load_catalog().get("gpt-4")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_weights_are_intact_only_when_their_hash_is_the_catalogs(tmp_path):
    assert not SHIPPED.weights_intact(tmp_path)
    SHIPPED.folder(tmp_path).mkdir()
    (SHIPPED.folder(tmp_path) / "model.safetensors").write_bytes(b"other weights")
    assert not SHIPPED.weights_intact(tmp_path)


def test_the_hash_of_weights_in_several_files_depends_on_each():
    one = SHIPPED.model_copy(update={"weights": {"a": "1" * 64, "b": "2" * 64}})
    other = SHIPPED.model_copy(update={"weights": {"a": "1" * 64, "b": "3" * 64}})
    assert len({SHIPPED.base_sha256, one.base_sha256, other.base_sha256}) == 3


def described(folder, name: str = "own", **changes: Any) -> BaseModelEntry:
    """Write a description below ``folder`` as an operator might have left it."""
    values = SHIPPED.model_dump() | {"name": "own"}
    for key, change in changes.items():
        values[key] |= change
    (folder / name).mkdir()
    entry = BaseModelEntry.model_construct(**values)
    (folder / name / DESCRIPTION).write_text(entry.model_dump_json(warnings=False))
    return entry


def test_an_added_model_is_read_from_beside_its_weights_with_the_profile_as_edited(tmp_path):
    described(tmp_path, profile={"first_trained_layer": 4, "last_trained_layer": 5})
    entry = load_catalog(tmp_path).get("own")
    assert list(entry.profile.trained_layers) == [4, 5]
    assert entry.peft_modules()[0] == "model.layers.4.self_attn.q_proj"
    assert [each.name for each in load_catalog(tmp_path)] == [SHIPPED.name, "own"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile": {"last_trained_layer": 30}}, "no block of the 30 layers"),
        ({"profile": {"first_trained_layer": 9, "last_trained_layer": 8}}, "no block"),
        ({"profile": {"modules": ["self_attn.qkv_proj"]}}, "no linear module self_attn.qkv_proj"),
        ({"profile": {"modules": []}}, "modules"),
        ({"profile": {"max_rank": 17}}, "max_rank"),
        ({"profile": {"max_rank": 8}}, "rank is above"),
        ({"profile": {"layer": 3}}, "layer"),
    ],
)
def test_what_is_edited_wrongly_names_file_and_field(tmp_path, changes, words):
    described(tmp_path, **changes)
    with pytest.raises(BadDescription, match=words) as caught:
        load_catalog(tmp_path)
    assert f"own/{DESCRIPTION}" in str(caught.value)


def test_a_folder_that_was_renamed_is_refused(tmp_path):
    described(tmp_path, "copy")
    with pytest.raises(BadDescription, match="the name is own"):
        load_catalog(tmp_path)


def proof_of(entry: BaseModelEntry) -> Proof:
    return Proof(
        base_sha256=entry.base_sha256,
        profile_sha256=entry.profile.sha256(),
        template_sha256=hashlib.sha256(b"template").hexdigest(),
        path="fused",
        peft_off=0.01,
        served_off=0.02,
        adapter_off=0.5,
        versions={},
    )


def test_an_added_model_is_offered_once_it_is_proven_as_it_is(tmp_path):
    described(tmp_path)
    (tmp_path / "own" / "config.json").write_text("{}")
    template = tmp_path / "own" / "chat_template.jinja"
    template.write_text("template")
    entry = load_catalog(tmp_path).get("own")
    assert not entry.offered(tmp_path)
    write_proof(tmp_path / "own", proof_of(entry))
    assert entry.offered(tmp_path)
    profile = entry.profile.model_copy(update={"first_trained_layer": 10})
    assert not entry.model_copy(update={"profile": profile}).offered(tmp_path)
    swapped = entry.model_copy(update={"weights": {"model.safetensors": "0" * 64}})
    assert not swapped.offered(tmp_path)
    template.write_text("another")
    assert not entry.offered(tmp_path)
    (tmp_path / "own" / PROOF).write_text("{")
    assert not entry.offered(tmp_path)


def test_the_shipped_model_is_offered_where_it_is_installed(tmp_path):
    assert not SHIPPED.offered(tmp_path)
    SHIPPED.folder(tmp_path).mkdir()
    (SHIPPED.folder(tmp_path) / "config.json").write_text("{}")
    assert SHIPPED.offered(tmp_path)
