from pathlib import Path

from examples.datasets import company, stdlib
from shared.files.rows import validate


def test_the_company_asks_of_every_kind_and_checks_against_its_kind_only() -> None:
    data = company()
    assert len(data.questions) >= 40
    lid, fan = data.questions[0], data.questions[1]
    assert lid.kind == fan.kind
    assert data.passes(lid, f"It shows {lid.expected}.")
    assert not data.passes(lid, f"It shows {lid.expected} or {fan.expected}.")
    assert data.passes(lid, f"It shows {lid.expected}, see {data.questions[-1].expected}.")


def test_the_standard_library_is_written_as_a_valid_training_file(tmp_path: Path) -> None:
    data = stdlib(tmp_path)
    report = validate(data.training_file, data.training_file.name)
    assert (report.errors, report.warnings) == ([], [])
    assert report.rows >= 400
    assert data.majority() < 0.15
