"""Held-out rows that the served model will be asked: drawn by seed, with their checker."""

import random
from collections.abc import Collection
from pathlib import Path

from services.worker.comparing.prompts import expected_of, is_askable, question_of, searched_text
from services.worker.spec import HeldOutQuestion, HeldOutQuestions
from services.worker.training.dataset import HeldOut
from shared.evidence.checkers import choose
from shared.evidence.split import groups_of
from shared.files.normalised import NormalisedRow

MOST_ASKED = 20
JUDGED_ROWS = 200
"""The checker is chosen by so many of the file's rows; a comparison asks as many."""


def write_questions(path: Path, held_out: HeldOut, seed: int) -> Path | None:
    """Write what ``held_out`` can be asked; return ``path``, or None where there is nothing."""
    questions = draw(held_out, seed)
    if questions is None:
        return None
    path.write_text(questions.model_dump_json(), encoding="utf-8")
    return path


def draw(held_out: HeldOut, seed: int) -> HeldOutQuestions | None:
    """Draw up to MOST_ASKED rows, in the order of their file, and choose their checker."""
    draws = random.Random(seed)
    asked = set(draws.sample(held_out.rows, min(MOST_ASKED, len(held_out.rows))))
    judged = set(draws.sample(range(held_out.of), min(JUDGED_ROWS, held_out.of)))
    found = _askable(held_out.path, asked | judged)
    rows = [row for number, row in found.items() if number in asked]
    if not rows:
        return None
    answered = ((searched_text(question_of(row)), expected_of(row)) for row in found.values())
    return HeldOutQuestions(
        on=held_out.on,
        checker=choose(answered).checker,
        questions=tuple(
            HeldOutQuestion(
                line=row.line, messages=question_of(row), expected=expected_of(row), cluster=cluster
            )
            for row, cluster in zip(rows, groups_of(rows), strict=True)
        ),
    )


def _askable(path: Path, numbers: Collection[int]) -> dict[int, NormalisedRow]:
    """Return those of the file's rows that are asked for and have a question and an answer."""
    with path.open("rb") as lines:
        rows = (
            (number, NormalisedRow.model_validate_json(line))
            for number, line in enumerate(lines)
            if number in numbers
        )
        return {number: row for number, row in rows if is_askable(row)}
