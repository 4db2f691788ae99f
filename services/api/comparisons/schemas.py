"""Comparisons: what may be asked, and how they, their rows and their events are shown."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.comparisons.models import (
    Comparison,
    ComparisonAnswer,
    ComparisonEvent,
    ComparisonQuestion,
)
from shared.comparisons.state import PUBLIC, State
from shared.evidence.arms import Arm

Checker = Literal["exact", "fact", "label", "json", "json_fields", "token_f1", "rouge_l", "chrf"]
Retriever = Literal["bm25", "embedding", "hybrid"]
Language = Literal["en", "ja"]
FileId = Annotated[str, StringConstraints(max_length=48)]
_Text = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]
_Key = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00]+$")]


class Asked(BaseModel):
    """What may be said of a comparison, with a job or without."""

    model_config = ConfigDict(extra="forbid")

    held_out_file: FileId | None = None
    """Rows to ask; without it a part of the training file is set apart."""
    documents: list[FileId] = Field(default=[], max_length=100)
    """Files with purpose ``user_data``, whose passages the arm ``documents`` retrieves."""
    arms: list[Arm] | None = Field(None, min_length=1, max_length=len(Arm))
    """Without it: all that make sense."""
    checker: Checker | None = None
    """Says how right an answer is; without it, chosen by the data."""
    questions: int = Field(200, ge=1, le=1000)
    """At most so many rows are asked, and set apart: never more than a fifth of the file."""
    max_tokens: int | None = Field(None, ge=1, le=4096)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    retriever: Retriever = "hybrid"


class ComparisonIn(Asked):
    """A comparison to be, of a training file or of a job's model."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m-instruct",
                    "training_file": "file-01KAXJ3W8N1V7S9QZ4T5R6M2CD",
                    "questions": 200,
                    "seed": 1,
                }
            ]
        },
    )

    model: str | None = Field(None, max_length=200)
    """The base model; a job has its own."""
    training_file: FileId | None = None
    job: FileId | None = None
    """A fine-tuning job, whose model is asked as well."""
    metadata: dict[_Key, _Text] | None = Field(None, max_length=16)


class ComparisonOut(BaseModel):
    """One comparison; its report, when there is one, has a URL of its own."""

    id: str
    object: Literal["comparison"] = "comparison"
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled"]
    model: str
    job: str | None
    training_file: str
    held_out_file: str | None
    documents: list[str]
    arms: list[Arm]
    checker: str | None
    questions: int
    max_tokens: int | None
    seed: int
    retriever: str
    metadata: dict[str, str] | None
    progress: dict[str, Any] | None
    verdict: dict[str, Any] | None
    """The report's verdict."""
    error: dict[str, Any] | None
    attempt: int
    cancel_requested: bool

    @classmethod
    def of(cls, row: Comparison) -> "ComparisonOut":
        """Show a row."""
        return cls(
            id=row.id,
            created_at=int(row.created_at.timestamp()),
            started_at=_seconds(row.started_at),
            finished_at=_seconds(row.finished_at),
            status=PUBLIC[State(row.state)],
            model=row.base_model,
            job=row.job_id,
            training_file=row.training_file_id,
            held_out_file=row.held_out_file_id,
            documents=row.document_file_ids,
            arms=row.arms,
            checker=row.checker,
            questions=row.questions,
            max_tokens=row.max_tokens,
            seed=row.seed,
            retriever=row.retriever,
            metadata=row.user_metadata,
            progress=row.progress,
            verdict=row.report["verdict"] if row.report else None,
            error=row.error,
            attempt=row.attempt,
            cancel_requested=row.cancel_requested,
        )


class ComparisonEventOut(BaseModel):
    """One event. ``state`` is the state entered."""

    id: str
    object: Literal["comparison.event"] = "comparison.event"
    created_at: int
    level: str
    type: str
    message: str
    data: dict[str, Any] | None
    state: str | None
    attempt: int

    @classmethod
    def of(cls, row: ComparisonEvent) -> "ComparisonEventOut":
        """Show a row."""
        return cls(
            id=row.id,
            created_at=int(row.created_at.timestamp()),
            level=row.level,
            type=row.type,
            message=row.message,
            data=row.data,
            state=row.state,
            attempt=row.attempt,
        )


class AnswerOut(BaseModel):
    """What one arm said."""

    arm: str
    answer: str
    score: float | None
    """Of the checker; null until the comparison has ended."""
    failed: str | None
    cut: bool
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: float | None
    answer_seconds: float | None


class RowOut(BaseModel):
    """A question with every arm's answer so far."""

    object: Literal["comparison.row"] = "comparison.row"
    line: int
    question: str
    expected: str
    cluster: int
    answers: list[AnswerOut]

    @classmethod
    def of(cls, row: ComparisonQuestion, answers: list[ComparisonAnswer]) -> "RowOut":
        """Show a question's row with its answers' rows."""
        shown = [
            AnswerOut(
                arm=answer.arm,
                answer=answer.answer,
                score=answer.score,
                failed=answer.failed,
                cut=answer.cut,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                first_token_seconds=answer.first_token_seconds,
                answer_seconds=answer.answer_seconds,
            )
            for answer in answers
        ]
        return cls(
            line=row.line,
            question=row.question,
            expected=row.expected,
            cluster=row.cluster,
            answers=shown,
        )


class ComparisonDeleted(BaseModel):
    """What is gone."""

    id: str
    object: Literal["comparison.deleted"] = "comparison.deleted"
    deleted: Literal[True] = True


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None
