"""Both languages have every word, and no page mixes them."""

import re
import tomllib
from html import unescape
from importlib.resources import files
from string import Formatter
from typing import Any, get_args

import pytest

from shared.evidence.arms import Arm
from shared.evidence.page import html
from shared.evidence.report import Clustering, Disagreement, Report, VerdictKind
from shared.evidence.words import arm_name, words
from tests.shared.evidence.reports import before_training, full

TABLE: dict[str, dict[str, str]] = tomllib.loads(
    files("shared.evidence").joinpath("words.toml").read_text("utf-8")
)
NAMES = {"BM25", "chrF", "ROUGE-L", "JSON", "SHA-256", "F1", "p"}
"""Latin words that Japanese text has, too."""


def places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_word_is_there_in_both_languages_with_the_same_places() -> None:
    for name, texts in TABLE.items():
        assert set(texts) == {"en", "ja"}, name
        assert all(texts.values()), name
        assert places(texts["en"]) == places(texts["ja"]), name


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_arm_verdict_and_clustering_has_its_words(language: Any) -> None:
    needed = [f"arm_{arm}" for arm in Arm] + [f"arm_{arm}_line" for arm in Arm]
    needed += [f"verdict_{kind}" for kind in get_args(VerdictKind)]
    needed += [f"clustered_{kind}" for kind in get_args(Clustering)]
    assert set(needed) <= words(language).keys()


def test_an_arm_without_words_keeps_its_name() -> None:
    assert arm_name("retrieved_9", "ja") == "retrieved_9"


def nameless(report: Report) -> Report:
    """Return the report without any Latin text of its own."""
    reproduction = report.reproduction.model_copy(
        update={"retriever": "・", "embedder": "・", "versions": {"・": "1"}}
    )
    data = report.data.model_copy(update={"training_sha256": "・", "held_out_sha256": "・"})
    own = {
        "comparison": "・",
        "base_model": "・",
        "tuned_model": "・",
        "job": "・",
        "checker": "・",
    }
    disagreements = tuple(japanese(row) for row in report.disagreements)
    parts = {"reproduction": reproduction, "data": data, "disagreements": disagreements}
    return report.model_copy(update={**own, **parts})


def japanese(row: Disagreement) -> Disagreement:
    """Return a disagreement with texts that have no Latin letter."""
    answers = [
        answer.model_copy(
            update={
                "answer": "・",
                "retrieved": [
                    found.model_copy(update={"text": "・"}) for found in answer.retrieved
                ],
            }
        )
        for answer in row.answers
    ]
    return row.model_copy(update={"question": "・", "expected": "・", "answers": tuple(answers)})


@pytest.mark.parametrize("report", [full(), full("either", binary=False), before_training()])
def test_no_english_is_left_in_the_japanese_page(report: Report) -> None:
    body = html(nameless(report), "ja").split("<body>")[1]
    shown = unescape(re.sub(r"<[^>]+>", " ", body))
    assert set(re.findall(r"[A-Za-z][A-Za-z0-9-]*", shown)) <= NAMES
