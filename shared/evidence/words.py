"""The words of a report in each language: ``words.toml`` has every one of them in both."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

Language = Literal["en", "ja"]


@cache
def words(language: Language) -> Mapping[str, str]:
    """Return the words of one language by their names.

    Raises:
        KeyError: A word is missing in this language.
    """
    table = tomllib.loads(files("shared.evidence").joinpath("words.toml").read_text("utf-8"))
    return {name: texts[language] for name, texts in table.items()}


def arm_name(arm: str, language: Language) -> str:
    """Return how tables call an arm; an arm without words of its own keeps its name."""
    return words(language).get(f"arm_{arm}", arm)
