"""What a base model's proof asks for: who reads the adapter otherwise, or not at all, is found.

The processes behind it are stood for; tests/services/worker/training/test_prove.py has the real.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.worker import prove as prove_module
from services.worker.prove import NotProven, prove
from services.worker.served_check import InferenceAway
from services.worker.spec import ServedCheck
from shared.catalog import load_catalog

ENTRY = load_catalog().get("smollm2-135m-instruct")
TRAINED, BASE = (-1.0, -0.5, -2.0), (-1.6, -1.2, -2.9)
CHECK = ServedCheck(
    token_ids=(1, 2, 3, 4), answer_start=1, adapter_logprobs=TRAINED, base_logprobs=BASE
)


class Told:
    """Stands for PEFT, vLLM and the training path: what each says of the adapter."""

    peft: tuple[float, ...] = TRAINED
    vllm: tuple[float, ...] | Exception = TRAINED
    path: str | Exception = "fused"

    def prompt_logprobs(self, *_: Any) -> list[float]:
        if isinstance(self.vllm, Exception):
            raise self.vllm
        return list(self.vllm)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()

    def trained(_entry: Any, _models_dir: Path, folder: Path) -> str:
        if isinstance(told.path, Exception):
            raise told.path
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text("{}")
        (folder / "served_check.json").write_text(f"[{CHECK.model_dump_json()}]")
        (folder / "by_peft.json").write_text(json.dumps(told.peft))
        return told.path

    @contextmanager
    def inference(*_: Any) -> Iterator[Told]:
        yield told

    monkeypatch.setattr(prove_module, "_trained", trained)
    monkeypatch.setattr(prove_module, "_inference", inference)
    return told


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    ENTRY.folder(tmp_path).mkdir()
    (ENTRY.folder(tmp_path) / "chat_template.jinja").write_text("template")
    return tmp_path


def test_who_reads_the_adapter_alike_proves_the_model(told: Told, models_dir: Path) -> None:
    told.peft, told.vllm = (-1.01, -0.5, -2.0), (-1.0, -0.52, -2.0)
    proof = prove(ENTRY, models_dir)
    assert (proof.path, proof.base_sha256) == ("fused", ENTRY.base_sha256)
    assert 0 < proof.peft_off < 0.02
    assert 0 < proof.served_off < 0.02
    assert proof.adapter_off > 0.5


@pytest.mark.parametrize(
    ("who", "reads", "words"),
    [
        ("peft", BASE, "PEFT reads the adapter otherwise"),
        ("peft", (-1.3, -0.8, -2.3), "PEFT reads the adapter otherwise"),
        ("vllm", BASE, "vLLM serves the adapter otherwise"),
        ("vllm", InferenceAway("refused with status 404"), "vLLM does not serve the adapter"),
        ("path", NotProven("no path computes it"), "no path computes it"),
    ],
)
def test_who_reads_it_otherwise_or_not_is_named(
    told: Told, models_dir: Path, who: str, reads: Any, words: str
) -> None:
    setattr(told, who, reads)
    with pytest.raises(NotProven, match=words):
        prove(ENTRY, models_dir)


def test_a_weak_adapter_that_is_served_as_the_base_is_found(
    told: Told, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of each job allows a fixed distance, which may be all that this adapter changes."""
    near = tuple(value + 0.04 for value in TRAINED)
    weak = CHECK.model_copy(update={"base_logprobs": near})
    monkeypatch.setattr("tests.services.worker.test_prove.CHECK", weak)
    told.vllm = tuple(value + 0.03 for value in TRAINED)
    with pytest.raises(NotProven, match=r"vLLM"):
        prove(ENTRY, models_dir)
