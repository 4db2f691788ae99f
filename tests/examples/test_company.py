import json
import re
import tomllib
from collections import Counter
from pathlib import Path

from examples.company.build import FACTS, HELD_OUT, TRAIN, build
from examples.rows import to_jsonl
from shared.files.rows import validate

SHARED_WORDS_LIMIT = 0.7


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+", text.casefold()))


def test_the_committed_files_are_what_the_facts_make() -> None:
    train, held_out = build()
    assert TRAIN.read_text(encoding="utf-8") == to_jsonl(train)
    assert HELD_OUT.read_text(encoding="utf-8") == to_jsonl(held_out)


def test_there_are_forty_facts_half_of_them_codes_each_in_several_phrasings() -> None:
    kinds = tomllib.loads(FACTS.read_text(encoding="utf-8"))["kinds"]
    facts = [(kind, fact) for kind in kinds for fact in kind["facts"]]
    assert len(facts) >= 40
    assert sum(kind["coded"] for kind, _ in facts) >= len(facts) / 2
    assert all(len(set(kind["questions"])) >= 4 for kind in kinds)


def test_no_two_facts_of_a_kind_share_a_value() -> None:
    _, held_out = build()
    facts = {(row["group"], row["messages"][1]["content"].casefold()) for row in held_out}
    counts = Counter((group.split(":")[0], value) for group, value in facts)
    assert max(counts.values()) == 1


def test_every_fact_is_asked_in_words_it_was_not_trained_on() -> None:
    train, held_out = build()
    questions = [row["messages"][0]["content"] for row in train]
    assert len(held_out) == 200
    for row in held_out:
        asked = _words(row["messages"][0]["content"])
        subject = row["group"].split(": ")[1].casefold()
        about_it = [text for text in questions if subject in text.casefold()]
        assert len(about_it) >= 4
        for text in about_it:
            assert len(asked & _words(text)) / len(asked) <= SHARED_WORDS_LIMIT, (row, text)


def test_no_row_carries_a_system_prompt() -> None:
    train, _ = build()
    assert all([m["role"] for m in row["messages"]] == ["user", "assistant"] for row in train)


def test_the_japanese_sample_is_valid(tmp_path: Path) -> None:
    sample = FACTS.parent / "sample_ja.jsonl"
    rows_path = tmp_path / "rows.jsonl"
    report = validate(sample, sample.name, rows_path)
    assert (report.errors, report.format, report.rows) == ([], "instruction", 12)
    first = json.loads(rows_path.read_text(encoding="utf-8").splitlines()[0])
    assert first["messages"][0]["content"].startswith("窯の蓋")
