"""Errors survive the journey through Celery's JSON-less corners: they pickle by their arguments."""

import pickle

import pytest

from shared import errors


@pytest.mark.parametrize("kind", [errors.TailorError, *errors.TailorError.__subclasses__()])
def test_every_error_survives_pickling(kind):
    error = pickle.loads(pickle.dumps(kind("壊れた", "file", "broken")))  # noqa: S301  our own bytes
    assert (type(error), str(error), error.param, error.code) == (kind, "壊れた", "file", "broken")
