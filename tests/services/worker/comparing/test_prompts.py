"""What stands in a prompt, and where."""

from services.worker.comparing.prompts import (
    expected_of,
    is_askable,
    messages,
    question_of,
    searched_text,
)
from shared.files.normalised import Message, NormalisedRow


def row(*texts, line=1):
    """A row of ``role: text``."""
    pairs = (text.split(": ", 1) for text in texts)
    return NormalisedRow(
        line=line, messages=tuple(Message(role=role, content=text) for role, text in pairs)
    )


ASKED = row("system: 丁寧に", "user: 五?", "assistant: 5")
NEAR = row("system: 簡潔に", "user: 四?", "assistant: 4", "user: 本当に?", "assistant: はい")
FAR = row("user: 一?", "assistant: 1")


def said(turns):
    return [f"{turn['role']}: {turn['content']}" for turn in turns]


def test_a_row_is_a_question_and_its_last_answer():
    assert [m.content for m in question_of(NEAR)] == ["簡潔に", "四?", "4", "本当に?"]
    assert expected_of(NEAR) == "はい"
    assert searched_text(question_of(NEAR)) == "四?\n4\n本当に?"


def test_rows_without_question_or_answer_cannot_be_asked():
    assert is_askable(FAR)
    for texts in (["user: 一?"], ["assistant: 1"], ["system: 丁寧に", "assistant: 1"]):
        assert not is_askable(row(*texts))
    assert expected_of(row("user: 一?")) == ""
    trailing = row("user: 一?", "assistant: 1", "user: ありがとう")
    assert (expected_of(trailing), len(question_of(trailing))) == ("1", 1)


def test_without_help_a_question_is_asked_as_it_stands():
    assert said(messages(question_of(ASKED))) == ["system: 丁寧に", "user: 五?"]


def test_rows_are_earlier_turns_behind_the_questions_own_system_message():
    assert said(messages(question_of(ASKED), [FAR, NEAR])) == [
        "system: 丁寧に",
        "user: 一?",
        "assistant: 1",
        "user: 四?",
        "assistant: 4",
        "user: 本当に?",
        "assistant: はい",
        "user: 五?",
    ]


def test_passages_stand_before_the_question_in_the_users_message():
    turns = messages(question_of(ASKED), passages=["数は五つ。", "色は青。"])
    assert said(turns) == [
        "system: 丁寧に",
        "user: Context:\n\n数は五つ。\n\n色は青。\n\nQuestion: 五?",
    ]
