"""What a job keeps of its rows to be looked at: what the model saw, and what it answers.

The worker writes it, the API shows it. It is a few of the tenant's own texts: never logged, never
in an event, and gone with the file that they are from.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

Text = Annotated[str, AfterValidator(lambda text: text.replace("\0", "\N{REPLACEMENT CHARACTER}"))]
"""PostgreSQL's JSON has no NUL, which a model may well say."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(_Part):
    """Neighbouring tokens, decoded, that are all learnt, or all only read."""

    text: Text
    learnt: bool


class BatchRow(_Part):
    """One row of a batch, as the training step takes it: template words included."""

    line: int
    """In its user's file."""
    tokens: int
    """Of the whole row; it is shown up to a number of them."""
    spans: tuple[Span, ...]


class HeldOutAnswer(_Part):
    """What the model answers to a row that it was not trained on; long texts are cut."""

    line: int
    """In its user's file."""
    question: Text
    expected: Text
    answer: Text
    score: float
    """From 0 to 1, by the checker that the job's metrics name."""


class HeldOutAnswers(_Part):
    """Some of the answers that were scored; none stands twice."""

    best: tuple[HeldOutAnswer, ...] = ()
    worst: tuple[HeldOutAnswer, ...] = ()
    random: tuple[HeldOutAnswer, ...] = ()
    """Drawn from the rest."""


class Examples(_Part):
    """What is kept; empty where there is nothing yet, or no more."""

    first_batch: tuple[BatchRow, ...] = ()
    """The first rows of the first step's batch."""
    answers: HeldOutAnswers = HeldOutAnswers()
