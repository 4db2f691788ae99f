from itertools import pairwise

import pytest
from pydantic import ValidationError

from shared.catalog import load_catalog
from shared.jobs.hyperparameters import Requested, resolve

BASE = load_catalog().get("smollm2-135m-instruct")


def _epochs(rows: int) -> int:
    return resolve(Requested(), rows, BASE).n_epochs


def test_few_rows_get_many_epochs_and_thousands_get_two() -> None:
    assert _epochs(10) == 20
    assert 2 <= _epochs(400) <= 8
    assert _epochs(5000) == 2


def test_more_rows_never_get_more_epochs() -> None:
    epochs = [_epochs(rows) for rows in range(1, 5000, 7)]
    assert all(before >= after for before, after in pairwise(epochs))


def test_auto_may_be_said_aloud() -> None:
    aloud = Requested(n_epochs="auto", batch_size="auto", learning_rate_multiplier="auto")
    assert resolve(aloud, 400, BASE) == resolve(Requested(), 400, BASE)


def test_what_is_asked_for_is_what_is_used() -> None:
    asked = Requested(n_epochs=3, batch_size=16, learning_rate_multiplier=0.5)
    numbers = resolve(asked, 400, BASE)
    assert (numbers.n_epochs, numbers.batch_size) == (3, 16)
    assert numbers.learning_rate == BASE.defaults.learning_rate / 2


def test_training_can_stop_early_but_not_at_once() -> None:
    assert all(resolve(Requested(), rows, BASE).early_stopping_patience >= 2 for rows in (1, 9999))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_epochs": 0},
        {"n_epochs": 51},
        {"n_epochs": "many"},
        {"batch_size": 257},
        {"batch_size": 0},
        {"learning_rate_multiplier": 0},
        {"learning_rate_multiplier": float("inf")},
        {"beta": 0.1},
    ],
)
def test_values_outside_openais_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Requested(**wrong)
