"""A row may say what it is about: its group is kept, whatever the file's form."""

import json

import pytest

from shared.files.rows import validate


def groups(tmp_path, body: bytes, name: str):
    """Return each normalised row's group, and the report."""
    source, target = tmp_path / name, tmp_path / "rows.jsonl"
    source.write_bytes(body)
    report = validate(source, name, target)
    return [json.loads(line).get("group") for line in target.read_text().splitlines()], report


CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"group": "fact 7"}, "fact 7"),
        ({"グループ": " 営業時間 "}, "営業時間"),
        ({"group": 7}, "7"),
        ({"group": None}, None),
        ({"group": " "}, None),
        ({}, None),
    ],
)
def test_a_rows_group_is_kept_where_it_says_one(tmp_path, said, kept):
    found, report = groups(tmp_path, (json.dumps(CHAT | said) + "\n").encode(), "a.jsonl")
    assert (found, report.ok, report.warnings) == ([kept], True, [])


def test_a_column_of_groups(tmp_path):
    body = "質問,回答,Group\n営業は?,9時,時間\n休みは?,日曜,\n".encode()
    found, report = groups(tmp_path, body, "a.csv")
    assert (found, report.warnings) == (["時間", None], [])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"group": ["a"]}, '"group" must be text or a number'),
        ({"group": True}, '"group" must be text or a number'),
        ({"group": "x" * 201}, "longer than 200"),
        ({"group": "a", "グループ": "b"}, "mean the same"),
    ],
)
def test_a_group_that_is_none_is_named(tmp_path, said, message):
    _, report = groups(tmp_path, (json.dumps(CHAT | said) + "\n").encode(), "a.jsonl")
    assert message in report.errors[0].message
