"""What is found by looking at a model, with the real transformers and vLLM."""

import json
from pathlib import Path

import pytest

from deploy.local.inspect_model import Refused, describe
from shared.catalog import BaseModelEntry, load_catalog
from tests.services.worker.training.architectures import build
from tests.services.worker.training.conftest import save_tokenizer

MODELS = Path(__file__).parents[3] / ".models"
SHIPPED = load_catalog().get("smollm2-135m-instruct")

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not SHIPPED.folder(MODELS).is_dir(), reason="no base model is installed")
def test_the_shipped_model_is_described_as_it_is() -> None:
    found = describe(SHIPPED.folder(MODELS))
    shipped = SHIPPED.model_dump(exclude={"source", "description"})
    assert found["architecture"] == shipped["architecture"]
    assert found["weights"] == shipped["weights"]
    assert found["dtype"] == shipped["dtype"]
    assert found["name"] == SHIPPED.name
    assert tuple(found["stop_token_ids"]) == SHIPPED.stop_token_ids


def made(kind: str, folder: Path, **changes: object) -> Path:
    words = save_tokenizer(folder)
    return build(kind, folder, vocab_size=words, **changes)


@pytest.mark.parametrize(
    ("kind", "trained", "runtime"),
    [
        ("phi3", (3, 3), {"self_attn.qkv_proj", "mlp.gate_up_proj"}),
        ("gemma2", (3, 3), {"self_attn.qkv_proj", "mlp.gate_up_proj"}),
        ("gpt_neox", (3, 3), {"attention.query_key_value", "mlp.dense_h_to_4h"}),
    ],
)
def test_names_inside_vllm_are_its_own(
    kind: str, trained: tuple[int, int], runtime: set[str], tmp_path: Path
) -> None:
    found = describe(made(kind, tmp_path / kind))
    source = {"kind": "folder", "path": "/x"}
    entry = BaseModelEntry.model_validate(found | {"source": source, "description": ""})
    assert len(entry.weights) > 3
    assert (entry.profile.first_trained_layer, entry.profile.last_trained_layer) == trained
    layer = f"{entry.architecture.layers_path}.3"
    assert {f"{layer}.{name}" for name in runtime} <= set(entry.runtime_modules())
    assert entry.architecture.tied_head is (kind == "gemma2")
    assert entry.stop_token_ids == (2,)


def test_another_architecture_than_transformers_or_vllm_know_is_refused(tmp_path: Path) -> None:
    folder = made("llama", tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "quantum"}))
    with pytest.raises(Refused, match="transformers does not know"):
        describe(folder)
    with pytest.raises(Refused, match="vLLM does not know HeliumForCausalLM"):
        describe(made("helium", tmp_path / "helium"))


def test_layers_without_linear_modules_or_unlike_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no linear modules"):
        describe(made("gpt2", tmp_path / "gpt2"))
    with pytest.raises(Refused, match="not all alike"):
        describe(made("lfm2", tmp_path / "lfm2", layer_types=["conv", "full_attention"] * 2))


def test_weights_that_are_quantised_and_a_lack_of_a_tokenizer_are_refused(tmp_path: Path) -> None:
    folder = made("llama", tmp_path / "base")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(Refused, match=r"tokenizer\.json is missing"):
        describe(folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refused, match=r"quantised \(awq\)"):
        describe(folder)


def test_a_template_that_ends_no_turn_is_refused(tmp_path: Path) -> None:
    folder = made("llama", tmp_path / "base")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(Refused, match="ends no turn"):
        describe(folder)
