"""What counts as a right answer, for each kind of data."""

import json

import pytest

from shared.evidence.checkers import Checker, choose, is_binary, score


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("The kiln shows error E12.", "E12"),
        ("It is e12, as always", "E12"),
        ("(LS-413)", "LS-413"),
        ("Open from 7:30 to\n15:45.", "7:30 to 15:45"),
        ("The warranty is 6 months.", "6 months"),
        ("窯は「E12」と表示します", "E12"),
        ("窯はE12を示す", "E12"),
        ("毎週月曜日に休みます", "月曜日"),
        ("Answer: 5, not more", "5"),
    ],
)
def test_a_fact_is_found_as_whole_tokens(answer, value):
    assert score("fact", answer, value) == 1


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("15", "5"),
        ("51", "5"),
        ("1.5 or 5.1", "5"),
        ("LS-5 and 5-LS", "5"),
        ("17:30 to 15:45", "7:30 to 15:45"),
        ("The warranty is 36 months.", "6 months"),
        ("BLS-413", "LS-413"),
        ("LS-4134", "LS-413"),
        ("スーパーマーケット", "マーケット"),
        ("", "E12"),
    ],
)
def test_a_fact_is_not_found_inside_another(answer, value):
    assert score("fact", answer, value) == 0


def test_an_answer_with_another_facts_value_fails():
    values = ["E12", "E31", "E47", "36 months", "6 months", "京都", "東京都"]
    assert score("fact", "Error E12.", "E12", values) == 1
    assert score("fact", "Error E12 or E31.", "E12", values) == 0
    assert score("fact", "E12 E31 E47", "E47", values) == 0
    assert score("fact", "36 months", "36 months", values) == 1
    assert score("fact", "東京都です", "京都", values) == 0


@pytest.mark.parametrize(
    ("checker", "answer", "expected", "right"),
    [
        ("exact", " E12\n", "Ｅ12", 1),
        ("exact", "E12.", "E12", 0),
        ("label", "Textwrap.\nBecause it wraps.", "textwrap", 1),
        ("label", "I think textwrap", "textwrap", 0),
        ("json", '{"b": [1], "a": "x"}', '{"a":"x","b":[1]}', 1),
        ("json", '{"a": "x", "b": [1, 2]}', '{"a":"x","b":[1]}', 0),
        ("json", '{"a": "x"} and more', '{"a":"x"}', 0),
        ("json", "", '{"a":"x"}', 0),
        ("json_fields", '{"a": 1, "b": 9}', '{"a": 1, "b": 2}', 0.5),
        ("json_fields", "nothing", '{"a": 1, "b": 2}', 0),
        ("token_f1", "the kiln is hot", "The kiln is cold.", 2 / 3),
        ("token_f1", "窯は熱い", "窯は熱い", 1),
        ("rouge_l", "w x y z", "w y x z", 0.75),
        ("chrf", "同じです", "同じです", 1),
        ("chrf", "まったく", "違うもの", 0),
    ],
)
def test_each_rule(checker, answer, expected, right):
    assert score(checker, answer, expected) == pytest.approx(right)


def test_who_grades_and_who_only_tells_right_from_wrong():
    graded = {checker for checker in Checker if not is_binary(checker)}
    assert graded == {"json_fields", "token_f1", "rouge_l", "chrf"}


@pytest.mark.parametrize(
    ("answers", "checker"),
    [
        ([json.dumps({"n": n}) for n in range(20)], "json"),
        (["os", "re"] * 10, "label"),
        ([f"E{n}" for n in range(20)], "fact"),
        ([f"It is sentence number {n}, as long as sentences are." for n in range(20)], "token_f1"),
        (
            [f"これは{n}番目の文です。" + "文らしい長さで続きます。" * 2 for n in range(20)],
            "chrf",
        ),
    ],
)
def test_the_data_choose(answers, checker):
    found = choose((f"q{n}", answer) for n, answer in enumerate(answers))
    assert found.checker == checker
    assert found.reason


def test_no_answers_choose_nothing():
    with pytest.raises(ValueError, match="no answers"):
        choose([])
