from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from services.worker.training.data import (
    BadData,
    NormalisedRow,
    carve_validation,
    read_rows,
    tokenise,
)
from tests.services.worker.training.conftest import chat, write_rows


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny)


def row(*messages: tuple[str, str], weights: dict[int, int] | None = None) -> NormalisedRow:
    return NormalisedRow.model_validate(
        {
            "line": 1,
            "messages": [
                {"role": role, "content": text, "weight": (weights or {}).get(index, 1)}
                for index, (role, text) in enumerate(messages)
            ],
        }
    )


def answer_text(made: NormalisedRow, tokenizer: PreTrainedTokenizerBase) -> str:
    (encoded,) = tokenise([made], tokenizer, 256, "training_file")
    return tokenizer.decode([encoded.token_ids[i] for i in encoded.answers])


@pytest.mark.parametrize(
    "messages",
    [
        [("user", "Hi"), ("assistant", "Hello")],
        [("system", "短く"), ("user", "営業時間は?"), ("assistant", "9時から17時です。")],
        [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    ],
)
def test_token_ids_are_the_chat_templates(
    messages: list[tuple[str, str]], tokenizer: PreTrainedTokenizerBase
) -> None:
    made = row(*messages)
    (encoded,) = tokenise([made], tokenizer, 256, "training_file")
    plain = [{"role": role, "content": text} for role, text in messages]
    expected = tokenizer.apply_chat_template(plain, tokenize=True)["input_ids"]
    assert list(encoded.token_ids) == expected


def test_loss_falls_on_the_answer_and_its_end_of_turn_only(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    made = row(("system", "短く"), ("user", "何時?"), ("assistant", "9時です"))
    assert answer_text(made, tokenizer) == "9時です<|im_end|>"


def test_every_weighted_turn_and_no_other_carries_a_loss(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = (("user", "a"), ("assistant", "no"), ("user", "b"), ("assistant", "yes"))
    assert answer_text(row(*turns, weights={1: 0}), tokenizer) == "yes<|im_end|>"
    assert answer_text(row(*turns), tokenizer) == "no<|im_end|>yes<|im_end|>"


def test_an_answer_that_quotes_the_end_of_turn_is_learnt_whole(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    made = row(("user", "a"), ("assistant", "x<|im_end|>y"))
    assert answer_text(made, tokenizer) == "x<|im_end|>y<|im_end|>"


def test_last_answer_is_the_final_run(tokenizer: PreTrainedTokenizerBase) -> None:
    made = row(("user", "a"), ("assistant", "first"), ("user", "b"), ("assistant", "終"))
    (encoded,) = tokenise([made], tokenizer, 256, "training_file")
    start, end = encoded.last_answer
    assert tokenizer.decode(encoded.token_ids[start:end]) == "終<|im_end|>"


def test_too_long_row_is_named_by_its_line_and_not_quoted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    rows = [
        NormalisedRow.model_validate(chat("short", "ok", line=3)),
        NormalisedRow.model_validate(chat("秘密" * 100, "ok", line=8)),
    ]
    with pytest.raises(BadData, match=r"^Line 8 has \d+ tokens; at most 256 fit\.$") as raised:
        tokenise(rows, tokenizer, 256, "validation_file")
    assert raised.value.param == "validation_file"


def test_row_without_a_weighted_answer_is_named_by_its_line(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    made = NormalisedRow.model_validate(chat("q", "a", line=5, weight=0))
    with pytest.raises(BadData, match="Line 5 has no assistant message"):
        tokenise([made], tokenizer, 256, "training_file")


def test_malformed_row_is_named_and_not_quoted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [chat("q", "a"), {"line": 2, "messages": "秘密"}])
    with pytest.raises(BadData) as raised:
        read_rows(path, "training_file")
    assert "Row 2" in str(raised.value)
    assert "秘密" not in str(raised.value)


def test_empty_file_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no rows"):
        read_rows(write_rows(tmp_path / "rows.jsonl", []), "training_file")


def normalised(count: int) -> list[NormalisedRow]:
    return [NormalisedRow.model_validate(chat(f"質問{i}", "答", line=i)) for i in range(count)]


@pytest.mark.parametrize(("rows", "held_out"), [(2, 1), (10, 1), (24, 2), (400, 40), (9000, 256)])
def test_a_tenth_is_held_out_and_never_too_much(rows: int, held_out: int) -> None:
    train, validation = carve_validation(normalised(rows))
    assert len(validation) == held_out
    assert len(train) == rows - held_out


def test_split_depends_on_content_and_not_on_order() -> None:
    rows = normalised(50)
    straight, turned = carve_validation(rows), carve_validation(rows[::-1])
    assert {r.line for r in straight[1]} == {r.line for r in turned[1]}


def test_equal_rows_stay_on_one_side() -> None:
    rows = [NormalisedRow.model_validate(chat(f"q{i % 9}", "a", line=i)) for i in range(90)]
    train, validation = carve_validation(rows)
    assert not {r.digest() for r in train} & {r.digest() for r in validation}
    assert train
    assert validation


def test_one_distinct_row_validates_on_itself() -> None:
    rows = [NormalisedRow.model_validate(chat("q", "a", line=i)) for i in range(12)]
    train, validation = carve_validation(rows)
    assert (len(train), len(validation)) == (12, 1)
