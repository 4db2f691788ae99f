"""Answers in the database: written by whoever holds the lease, found by every later attempt."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.worker.comparing.arms import Question
from services.worker.comparing.asking import Answer
from shared.comparisons.models import Comparison, ComparisonAnswer, ComparisonQuestion
from shared.evidence.arms import Arm


@dataclass(frozen=True)
class Kept:
    """An answer, and what stood beside its question."""

    answer: Answer
    places: tuple[int, ...]
    """Indexes of training rows; of passages in the arm of documents."""


def keep(session: Session, comparison: Comparison, arm: Arm, answers: Sequence[Kept]) -> None:
    """Write answers; one that is there already stays as it is.

    The caller's transaction also renews the lease, which fences it.
    """
    rows = [
        {
            "comparison_id": comparison.id,
            "tenant_id": comparison.tenant_id,
            "arm": arm,
            "line": kept.answer.line,
            # PostgreSQL's text has no NUL, which a model may well say.
            "answer": kept.answer.text.replace("\0", "\N{REPLACEMENT CHARACTER}"),
            "failed": kept.answer.failed,
            "cut": kept.answer.cut,
            "prompt_tokens": kept.answer.prompt_tokens,
            "completion_tokens": kept.answer.completion_tokens,
            "first_token_seconds": kept.answer.first_token_seconds,
            "answer_seconds": kept.answer.answer_seconds,
            "retrieved": list(kept.places),
        }
        for kept in answers
    ]
    session.execute(insert(ComparisonAnswer).values(rows).on_conflict_do_nothing())


def keep_questions(session: Session, comparison: Comparison, questions: Sequence[Question]) -> None:
    """Write the questions; every attempt asks the same."""
    rows = [
        {
            "comparison_id": comparison.id,
            "tenant_id": comparison.tenant_id,
            "line": question.line,
            "question": question.text,
            "expected": question.expected,
            "cluster": question.cluster,
        }
        for question in questions
    ]
    session.execute(insert(ComparisonQuestion).values(rows).on_conflict_do_nothing())


def keep_scores(
    session: Session, comparison: Comparison, scores: Mapping[Arm, Mapping[int, float]]
) -> None:
    """Write each answer's score."""
    session.execute(
        update(ComparisonAnswer),
        [
            {"comparison_id": comparison.id, "arm": arm, "line": line, "score": value}
            for arm, of_line in scores.items()
            for line, value in of_line.items()
        ],
    )


def kept_answers(session: Session, comparison_id: str) -> dict[Arm, dict[int, Kept]]:
    """Return all answers of a comparison, by arm and line."""
    found: dict[Arm, dict[int, Kept]] = defaultdict(dict)
    query = select(ComparisonAnswer).where(ComparisonAnswer.comparison_id == comparison_id)
    for row in session.scalars(query):
        answer = Answer(
            row.line,
            row.answer,
            failed=row.failed,
            cut=row.cut,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            first_token_seconds=row.first_token_seconds,
            answer_seconds=row.answer_seconds,
        )
        found[Arm(row.arm)][row.line] = Kept(answer, tuple(row.retrieved or ()))
    return found


def count_kept(session: Session, comparison_id: str) -> int:
    """Count the answers of a comparison."""
    query = select(func.count()).where(ComparisonAnswer.comparison_id == comparison_id)
    return session.scalar(query) or 0
