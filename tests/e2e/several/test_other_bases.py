"""Small random Qwen3, Gemma 3 and Mistral: added by command, trained and served side by side."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import short_folder
from tests.e2e.companies import KAMOME, QUESTION
from tests.e2e.jobs import fine_tune
from tests.running_stack import REPOSITORY, RunningStack
from tests.services.worker.training.architectures import build
from tests.services.worker.training.conftest import save_tokenizer

pytestmark = [pytest.mark.stack, pytest.mark.proof]
SERVABLE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
}
"""Of a size that vLLM's attention on a CPU knows."""
KINDS = {"qwen3": "small-qwen3", "gemma3_text": "small-gemma3", "mistral": "small-mistral"}


@pytest.fixture(scope="module")
def several() -> Iterator[RunningStack]:
    """A stack that serves all three and no other, each by a process of its own."""
    with short_folder() as folder:
        stack = RunningStack({"TAILOR_MODELS_DIR": str(folder / "models")})
        for kind, name in KINDS.items():
            source = folder / "sources" / name
            build(kind, source, **SERVABLE, vocab_size=save_tokenizer(source))
            add(source, name, folder / "models")
        try:
            served = [word for name in KINDS.values() for word in ("--model", name)]
            stack.command("up", "--detach", "--port", "0", *served)
            yield stack
        finally:
            stack.remove()


def add(source: Path, name: str, models_dir: Path) -> None:
    """Add a base model as an operator does, with its proof."""
    command = ["model", "add", str(source), "--name", name, "--models-dir", str(models_dir)]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *command],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_base_is_listed_trains_and_answers(several: RunningStack) -> None:
    tenant = several.tenant("kamome")
    listed = {model.id for model in tenant.client.models.list()}
    assert listed == set(KINDS.values())
    for base in KINDS.values():
        # It ends well only where the served model gives what the trained one gives.
        trained = fine_tune(tenant, KAMOME.training_file(), base_model=base, n_epochs=6)
        tuned, own = (
            tenant.client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": QUESTION}],
                temperature=0,
                max_tokens=16,
                logprobs=True,
                top_logprobs=5,
            )
            for model in (trained.model, base)
        )
        assert tuned.model == trained.model
        assert _logprobs(tuned) != _logprobs(own), base


def _logprobs(answer: Any) -> list[float]:
    """Of every token and those it might have been: a random model can be sure of the first."""
    tokens = answer.choices[0].logprobs.content
    return [other.logprob for token in tokens for other in token.top_logprobs]
