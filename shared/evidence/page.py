"""The report as one HTML page to mail and to print: no script, no network, nothing beside it.

Rows' texts come from users and are shown as text: the template escapes everything, a policy in the
page forbids scripts and loading, and long texts are clipped.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, partial
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from shared.evidence import figures
from shared.evidence.arms import COPIES, TUNED_ARMS
from shared.evidence.curve import lesson
from shared.evidence.report import Disagreement, Report, Retrieved
from shared.evidence.verdict import sentence
from shared.evidence.words import Language, arm_name, words

SHOWN_LINES = 8
"""Lines of one text; many short ones would fill pages."""


def html(report: Report, language: Language) -> str:
    """Return the page of a report."""
    return _template().render(
        report=report,
        language=language,
        w=words(language),
        f=figures,
        verdict=sentence(report.verdict, report.arms, language),
        arms={result.arm: result for result in report.arms},
        name=partial(arm_name, language=language),
        source=partial(source, language=language),
        ways=ways(report.disagreements),
        lesson=lesson(report, language) if report.learning_curve else "",
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("shared.evidence"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clipped": clipped, "shape": mark}
    return environment.get_template("page.html.jinja")


def mark(arm: str) -> Literal["tuned", "copy", "untuned"]:
    """Return the shape that stands for an arm in the chart."""
    if arm in TUNED_ARMS:
        return "tuned"
    return "copy" if arm in COPIES else "untuned"


def ways(disagreements: Sequence[Disagreement]) -> dict[tuple[str, str], list[Disagreement]]:
    """Return the disagreements by (better arm, worse arm)."""
    found: dict[tuple[str, str], list[Disagreement]] = {}
    for disagreement in disagreements:
        better, worse = disagreement.answers
        found.setdefault((better.arm, worse.arm), []).append(disagreement)
    return found


def source(retrieved: Retrieved, language: Language) -> str:
    """Return where a text was found: a line of the training file, or a document by its name."""
    line = re.fullmatch(r"training file, line (\d+)", retrieved.source)
    return words(language)["training_line"].format(line=line[1]) if line else retrieved.source


def clipped(text: str, limit: int) -> tuple[str, int]:
    """Return the beginning of a text without control characters, and how many are left out."""
    plain = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc").strip()
    shown = "\n".join(plain[:limit].split("\n")[:SHOWN_LINES])
    return shown, len(plain) - len(shown)
