"""Rows that are no company's: on them it is measured what a model has forgotten."""

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class General(NamedTuple):
    """The contents of ``general.toml``."""

    texts: Sequence[str]
    conversations: Sequence[Sequence[dict[str, str]]]
    """Questions with an answer each."""


@cache
def general_rows() -> General:
    """Return the texts and the instructions, in English and Japanese."""
    table = tomllib.loads(files("shared.evidence").joinpath("general.toml").read_text("utf-8"))
    conversations = [
        [
            {"role": "user", "content": each["question"]},
            {"role": "assistant", "content": each["answer"]},
        ]
        for each in table["instructions"]
    ]
    return General(table["text"], conversations)
