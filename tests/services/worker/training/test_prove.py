"""The training half of a base model's proof, on tiny models; the whole one under `make proof`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.worker.served_check import distance
from services.worker.spec import ServedCheck
from services.worker.training import prove as prove_module
from services.worker.training.paths import NotProven
from services.worker.training.prove import BY_PEFT, CHECKS, prove
from shared.catalog import DESCRIPTION, Proof, load_catalog, read_description
from shared.chat.encoder import Unmaskable
from tests.services.worker.training.architectures import build
from tests.services.worker.training.conftest import ROOT, describe, save_tokenizer

BASE = "smollm2-135m-instruct"


def tiny_of(kind: str, models_dir: Path) -> Path:
    folder = models_dir / "tiny"
    build(kind, folder, vocab_size=save_tokenizer(folder))
    describe(folder)
    return folder


@pytest.mark.parametrize(("kind", "path"), [("llama", "fused"), ("gemma2", "generic")])
def test_trainer_and_peft_make_the_same_of_a_random_adapter(
    kind: str, path: str, tmp_path: Path
) -> None:
    entry = read_description(tiny_of(kind, tmp_path) / DESCRIPTION)
    assert prove(entry, tmp_path, tmp_path / "out") == path
    checks = [
        ServedCheck.model_validate(each)
        for each in json.loads((tmp_path / "out" / CHECKS).read_text())
    ]
    trained = [value for check in checks for value in check.adapter_logprobs]
    base = [value for check in checks for value in check.base_logprobs]
    assert len(trained) > 100
    assert distance(json.loads((tmp_path / "out" / BY_PEFT).read_text()), trained) < 1e-3
    assert distance(base, trained) > 0.05


def test_a_model_that_no_path_computes_is_not_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise NotProven("no path")

    entry = read_description(tiny_of("llama", tmp_path) / DESCRIPTION)
    monkeypatch.setattr(prove_module, "load_decoder", refuse)
    with pytest.raises(NotProven):
        prove(entry, tmp_path, tmp_path / "out")


def test_a_template_that_rewrites_answers_is_not_proven(tmp_path: Path) -> None:
    folder = tiny_of("llama", tmp_path)
    template = folder / "chat_template.jinja"
    text = template.read_text().replace(
        "{{ message['content'] }}", "{{ message['content'] | replace('e', 'E') }}"
    )
    template.write_text(text)
    entry = read_description(folder / DESCRIPTION)
    with pytest.raises(Unmaskable, match="rewrites"):
        prove(entry, tmp_path, tmp_path / "out")


@pytest.mark.proof
def test_the_shipped_model_trains_and_serves() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.worker.prove", BASE, str(ROOT / ".models")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    proof = Proof.model_validate_json(done.stdout.splitlines()[-1])
    entry = load_catalog().get(BASE)
    assert entry.proof(ROOT / ".models") == proof
    assert proof.path == "fused"
    assert proof.served_off < proof.adapter_off / 3
