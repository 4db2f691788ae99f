"""The first batch is shown as the training step takes it, token by token."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from services.worker.spec import FirstBatchMessage
from services.worker.training.data import encoded_rows
from services.worker.training.first_batch import SHOWN_ROWS, SHOWN_TOKENS, first_batch
from services.worker.training.pack import make_pack
from services.worker.training.plan import Plan
from services.worker.training.rows import TokenRows, gather
from shared.chat.encoder import ChatEncoder
from shared.jobs.examples import BatchRow
from tests.services.worker.training.conftest import chat, write_rows

Read = Callable[..., TokenRows]


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> ChatEncoder:
    return ChatEncoder(tiny)


@pytest.fixture
def read(encoder: ChatEncoder, tmp_path: Path) -> Read:
    def read(*rows: dict[str, object]) -> TokenRows:
        path = write_rows(tmp_path / "rows.jsonl", list(rows))
        return gather(encoded_rows(path, encoder, 2 * SHOWN_TOKENS, "training_file"), tmp_path)

    return read


def shown(rows: TokenRows, encoder: ChatEncoder, seed: int = 7) -> FirstBatchMessage:
    return first_batch(rows, Plan(len(rows), 8, 3, seed), encoder.decode)


def text_of(row: BatchRow, *, learnt: bool) -> str:
    return "".join(span.text for span in row.spans if span.learnt == learnt)


def test_what_is_learnt_is_marked_template_and_end_of_turn_included(
    read: Read, encoder: ChatEncoder
) -> None:
    turns = [("user", "a"), ("assistant", "ignored"), ("user", "営業時間は?"), ("assistant", "9時")]
    messages = [{"role": role, "content": text} for role, text in turns]
    messages[1]["weight"] = 0  # type: ignore[assignment]
    (row,) = shown(read({"line": 3, "messages": messages}), encoder).rows
    before = (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nignored<|im_end|>\n"
        "<|im_start|>user\n営業時間は?<|im_end|>\n<|im_start|>assistant\n"
    )
    found = [(span.text, span.learnt) for span in row.spans]
    assert found == [(before, False), ("9時<|im_end|>", True), ("\n", False)]
    assert row.line == 3


def test_it_is_the_batch_of_the_first_step_as_the_step_takes_it(
    read: Read, encoder: ChatEncoder
) -> None:
    rows = read(*(chat(f"店{i}は?", f"{i}時です", line=i + 1) for i in range(12)))
    for seed in range(5):
        members = Plan(12, 8, 3, seed).batch(1)[:SHOWN_ROWS]
        pack = make_pack(members, rows, torch.device("cpu"))
        batch = shown(rows, encoder, seed).rows
        learnt = "".join(text_of(row, learnt=True) for row in batch)
        assert learnt == encoder.decode(pack.targets.tolist())
        assert [row.line for row in batch] == [member + 1 for member in members]
        assert sum(row.tokens for row in batch) == pack.row_tokens


def test_a_long_row_is_cut_and_says_how_long_it_is(read: Read, encoder: ChatEncoder) -> None:
    (row,) = shown(read(chat("長" * 500, "a")), encoder).rows
    assert row.tokens > SHOWN_TOKENS
    text = text_of(row, learnt=False)
    assert SHOWN_TOKENS - 3 < len(encoder.text_ids(text)) <= SHOWN_TOKENS
    assert text.endswith("長")
