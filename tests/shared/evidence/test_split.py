"""Which rows train, choose and report: by content and seed, and never a group in two parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.evidence.split import Part, groups_of, leave_out, set_apart, split
from shared.files.normalised import Message, NormalisedRow

GROUPS = st.lists(st.integers(0, 30), min_size=2, max_size=300)


def parts_of(keys, held_out=0, seed=1):
    """Split rows of which equal ``keys`` have equal content."""
    digests = [f"{key:05}" for key in keys]
    groups = [keys.index(key) for key in keys]
    return split(digests, groups, held_out=held_out, validation=True, seed=seed)


def row(line, question, answer="Yes.", group=None):
    turns = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return NormalisedRow(line=line, messages=turns, group=group)


@pytest.mark.parametrize(
    ("rows", "validation", "test"),
    [(2, 1, 0), (10, 1, 0), (190, 19, 0), (200, 10, 10), (400, 20, 20), (9000, 128, 128)],
)
def test_a_tenth_of_the_rows_chooses_and_reports_in_halves_where_they_suffice(
    rows, validation, test
):
    parts = parts_of(range(rows))
    assert (parts.count(Part.VALIDATION), parts.count(Part.TEST)) == (validation, test)


@pytest.mark.parametrize(
    ("facts", "times", "trained"),
    [(10, 10, 90), (20, 5, 90), (3, 40, 80), (2, 50, 50), (30, 300, 8700)],
)
def test_of_facts_pasted_many_times_most_are_trained(facts, times, trained):
    assert parts_of(list(range(facts)) * times).count(Part.TRAIN) == trained


def test_of_one_distinct_row_nothing_is_taken():
    assert parts_of([7] * 12, held_out=5) == [Part.TRAIN] * 12


@given(GROUPS)
def test_what_validates_depends_on_content_and_not_on_order(keys):
    assert parts_of(keys)[::-1] == parts_of(keys[::-1])


@given(GROUPS, st.integers(0, 50), st.integers(0, 9))
def test_no_group_is_torn_and_most_rows_are_trained(keys, held_out, seed):
    parts = parts_of(keys, held_out, seed)
    where = {(key, part) for key, part in zip(keys, parts, strict=True)}
    assert len(where) == len(set(keys))
    assert Part.TRAIN in parts
    assert (Part.VALIDATION in parts) == (len({k for k, p in where if p is not Part.TEST}) > 1)
    if held_out:
        assert parts.count(Part.TEST) <= min(held_out, len(keys) // 5)


@given(GROUPS, st.floats(0.05, 0.9), st.floats(0.05, 1.0))
def test_a_share_of_the_training_rows_is_whole_groups_and_a_part_of_a_larger_share(
    keys, small, large
):
    small, large = sorted((small, large))
    groups = [keys.index(key) for key in keys]
    parts = parts_of(keys, held_out=20)
    few, more = (leave_out(parts, groups, share, seed=1) for share in (small, large))
    assert Part.TRAIN in few
    for whole, less, least, group in zip(parts, more, few, groups, strict=True):
        if whole is not Part.TRAIN:
            assert less is least is whole
        elif least is Part.TRAIN:
            assert less is Part.TRAIN
        assert least is few[group] or whole is not Part.TRAIN
    largest = max(map(groups.count, groups))
    assert 0 <= few.count(Part.TRAIN) - small * parts.count(Part.TRAIN) < largest


def test_all_rows_are_a_share_too():
    parts = parts_of(range(100))
    assert leave_out(parts, range(100), 1.0, seed=3) == parts


def test_different_rows_of_one_group_stay_together():
    digests = [f"{n * 7919 % 10_007:05}" for n in range(400)]
    groups = [n - n % 4 for n in range(400)]
    parts = split(digests, groups, held_out=0, validation=True, seed=1)
    assert len(set(zip(groups, parts, strict=True))) == 100
    assert (parts.count(Part.VALIDATION), parts.count(Part.TEST)) == (20, 20)


def test_what_is_set_apart_for_a_comparison_is_what_the_comparison_asks():
    keys = list(range(100))
    parts = parts_of(keys, held_out=15, seed=3)
    assert [n for n, part in enumerate(parts) if part is Part.TEST] == set_apart(keys, 15, 3)
    assert parts.count(Part.TEST) == 15
    assert set_apart(keys, 15, 3) != set_apart(keys, 15, 4)
    assert len(set_apart(keys, 50, 3)) == 20


def test_rows_are_related_by_name_by_content_and_by_likeness():
    question = "Who may open the archive in the cellar of the office at night"
    rows = [
        row(1, "What is the code of the lid?", group="lid"),
        row(2, f"{question}?"),
        row(3, "Is it raining in the hills today?"),
        row(4, f"{question.replace('the archive', 'this archive')}?"),
        row(5, "Say which number the display shows.", group="lid"),
        row(6, "Is it raining in the hills today?"),
    ]
    assert groups_of(rows) == [0, 1, 2, 1, 0, 2]
