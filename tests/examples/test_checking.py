import pytest

from examples.checking import correct, states


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("The kiln shows error E12.", "E12"),
        ("It is e12, as always", "E12"),
        ("(LS-413)", "LS-413"),
        ("Open from 7:30 to\n15:45.", "7:30 to 15:45"),
        ("The warranty is 6 months.", "6 months"),
        ("窯は「E12」と表示します", "E12"),
        ("Answer: 5, not more", "5"),
    ],
)
def test_a_value_is_found_as_whole_tokens(answer: str, value: str) -> None:
    assert states(answer, value)


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
        ("", "E12"),
    ],
)
def test_a_value_is_not_found_inside_another(answer: str, value: str) -> None:
    assert not states(answer, value)


def test_an_answer_with_another_facts_value_fails() -> None:
    values = ["E12", "E31", "E47"]
    assert correct("Error E12.", "E12", values)
    assert not correct("Error E12 or E31.", "E12", values)
    assert not correct("Error E31.", "E12", values)
    assert not correct("E12 E31 E47", "E47", values)


def test_a_value_that_contains_another_is_not_two_values() -> None:
    assert correct("36 months", "36 months", ["6 months", "36 months"])
