import json
from pathlib import Path

from examples.checking import states
from examples.datasets import company, stdlib
from shared.files.rows import validate


def test_an_answer_with_another_facts_value_is_wrong_whatever_its_kind() -> None:
    data = company()
    assert len(data.questions) >= 40
    lid, fan = data.questions[0], data.questions[1]
    assert lid.kind == fan.kind
    assert data.passes(lid, f"It shows {lid.expected}.")
    assert not data.passes(lid, f"It shows {lid.expected} or {fan.expected}.")
    assert not data.passes(lid, f"It shows {lid.expected}, see {data.questions[-1].expected}.")


def test_the_ideal_answers_of_the_company_state_one_value_each() -> None:
    values = [question.expected for question in company().questions]
    for line in company().training_file.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)["messages"][1]["content"]
        assert sum(states(answer, value) for value in values) == 1, answer


def test_the_standard_library_is_written_as_a_valid_training_file(tmp_path: Path) -> None:
    data = stdlib(tmp_path)
    report = validate(data.training_file, data.training_file.name)
    assert (report.errors, report.warnings) == ([], [])
    assert report.rows >= 400
    assert data.majority() < 0.15
