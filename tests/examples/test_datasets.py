"""The example data sets: files that upload as they are, and held-out rows that stay held out."""

import json
from collections import Counter

import pytest

from examples.datasets import Data, DataSet, company, data_set
from shared.evidence.facts import states_only
from shared.files.rows import validate

pytestmark = pytest.mark.slow  # parses the standard library


SHIPPED = [data for data in Data if data is not Data.FAQ_JA]
"""The others are read where they are installed; see test_faq_ja.py."""


@pytest.fixture(scope="module", params=SHIPPED)
def example(request, tmp_path_factory) -> DataSet:
    return data_set(request.param, tmp_path_factory.mktemp(request.param))


def test_both_files_upload_without_a_word(example, tmp_path):
    for path in (example.training_file, example.held_out_file):
        report = validate(path, path.name, tmp_path / "rows.jsonl")
        assert (report.errors, report.warnings) == ([], [])
        assert report.rows >= 100


def test_the_ideal_answers_are_right_and_others_are_wrong(example):
    for question in example.questions:
        assert example.passes(question, question.expected)
    first = example.questions[0]
    other = next(each for each in example.questions if each.expected != first.expected)
    assert not example.passes(first, other.expected)
    assert not example.passes(first, f"{first.expected} or {other.expected}")


def test_no_held_out_question_is_trained_on(example):
    lines = example.training_file.read_text(encoding="utf-8").splitlines()
    trained = {json.loads(line)["messages"][-2]["content"].casefold() for line in lines}
    assert trained.isdisjoint(question.text.casefold() for question in example.questions)


def test_one_answer_alone_would_not_do(example):
    assert example.majority() < 0.15


def test_the_packages_of_changelogs_are_on_one_side(tmp_path):
    data = data_set(Data.CHANGELOG, tmp_path)
    lines = data.training_file.read_text(encoding="utf-8").splitlines()
    trained = {json.loads(line)["group"] for line in lines}
    held_out = Counter(question.group for question in data.questions)
    assert trained.isdisjoint(held_out)
    assert len(data.questions) == 200
    assert len(held_out) >= 10


def test_the_ideal_answers_of_the_company_state_one_value_each() -> None:
    values = {question.expected for question in company().questions}
    for line in company().training_file.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)["messages"][1]["content"]
        assert sum(states_only(answer, value, values) for value in values) == 1, answer
