"""The command line on the real stack: from a file to an answer, as the README has it."""

import re
from secrets import token_hex

import pytest

from examples.company.build import FACTS

pytestmark = pytest.mark.stack
SAMPLE = FACTS.parent / "sample_ja.jsonl"


def test_a_few_commands_lead_from_a_file_to_an_answer(stack, monkeypatch) -> None:
    monkeypatch.delenv("TAILOR_BASE_URL", raising=False)
    line = stack.command("tenant", "create", f"陶芸窯-{token_hex(3)}", "--export")
    monkeypatch.setenv("TAILOR_API_KEY", line.strip().removeprefix("export TAILOR_API_KEY="))
    training = ["--suffix", "kiln", "--epochs", "5"]
    ended = stack.command("job", "create", str(SAMPLE), *training, "--wait")
    assert "succeeded" in ended
    model = re.findall(r"tailor chat (ft:\S+)", ended)[0]
    assert model in stack.command("job", "list")
    question = "蓋スイッチの部品番号を教えてください。"
    assert stack.command("chat", model, question, "--max-tokens", "16").strip()
