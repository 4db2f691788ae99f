"""The real base model in bf16 on two threads: same bits after a resume, and PEFT agrees."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from services.worker.spec import TrainSpec
from shared.catalog import load_catalog
from tests.services.worker.training.attempts import interrupt
from tests.services.worker.training.conftest import ROOT, Trainer

ENTRY = load_catalog().get("smollm2-135m-instruct")
BASE = ENTRY.folder(ROOT / ".models")


@pytest.mark.stack
@pytest.mark.skipif(not BASE.is_dir(), reason="`make setup` has not installed the base model")
def test_real_base_resumes_to_the_same_bits_and_peft_agrees(
    make_spec: Callable[..., TrainSpec],
) -> None:
    def spec(attempt: int, *resume_from: Path) -> TrainSpec:
        return make_spec(
            attempt=attempt,
            base_model=ENTRY.name,
            base_dir=BASE,
            resume_from=resume_from,
            threads=2,
            checkpoint_seconds=1000,
            learning_rate=2e-3,
            rank=16,
            alpha=32,
            n_epochs=2,
            batch_size=8,
        )

    trainer = Trainer(None)
    unbroken = trainer.train(spec(1))
    assert trainer.warm_trainer._warm
    assert trainer.warm_trainer._warm.base.path == "fused"

    interrupt(trainer, spec(2), 4)
    resumed = trainer.train(spec(3, spec(2).attempt_dir))
    assert resumed.steps_this_attempt == 2
    assert resumed.history == unbroken.history
    name = "adapter_model.safetensors"
    assert (resumed.adapter_dir / name).read_bytes() == (unbroken.adapter_dir / name).read_bytes()
    wrapped = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(BASE), unbroken.adapter_dir
    )
    for check in json.loads(unbroken.check_file.read_text()):
        start, token_ids = check["answer_start"], torch.tensor([check["token_ids"]])
        with torch.no_grad():
            logprobs = wrapped(token_ids).logits[0, start - 1 : -1].float().log_softmax(-1)
        theirs = logprobs.gather(1, token_ids[0, start:, None])[:, 0]
        ours = torch.tensor(check["adapter_logprobs"])
        assert (theirs - ours).abs().mean() < ENTRY.serving.logprob_tolerance
