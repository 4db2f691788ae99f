"""A comparison's report as data: what the API answers, and what terminal and page are drawn from.

Shares and scores are between 0 and 1, times are seconds, tokens are means over the questions. Texts
of rows stand in ``disagreements`` alone.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

REPORT_VERSION = 1
LEVEL = 0.95
"""Of every interval."""
VerdictKind = Literal["fine_tune", "retrieve", "either", "cannot_tell", "before_training"]
Clustering = Literal["column", "near_duplicates", "none"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Part):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(_Part):
    """How much better an arm is than ``versus`` on the same questions."""

    versus: str
    score: Interval
    """Mean score of the arm less that of ``versus``; paired, clustered bootstrap."""
    better: int
    """Questions on which the arm scores more than ``versus``."""
    worse: int
    p: float | None
    """Exact McNemar test, Holm-adjusted over the report's comparisons; None for graded scores."""


class ArmResult(_Part):
    """One line of the table."""

    arm: str
    """``shared.evidence.arms`` has the names."""
    questions: int
    right: int | None
    """Questions answered right; None for graded scores."""
    score: Interval
    """Share right (Wilson), or mean score (clustered bootstrap)."""
    difference: Difference | None = None
    """To the report's reference arm; None for that arm itself."""
    failed: int = 0
    """Questions that could not be asked (mostly: longer than the context); they count as wrong."""
    cut: int = 0
    """Answers that reached the greatest length."""
    prompt_tokens: float
    completion_tokens: float
    first_token_seconds: float | None
    """Median; None where no model answers."""
    answer_seconds: float | None


class Verdict(_Part):
    """What the report says in one sentence; ``shared.evidence.verdict`` words it."""

    kind: VerdictKind
    best_tuned: str | None
    best_untuned: str
    difference: Interval | None
    """Best tuned arm less best untuned arm."""
    too_few: bool = False
    """It cannot tell because so few questions, or clusters of them, tell nothing for sure."""
    detectable: float
    """Smallest true difference that so many questions find with 80 % power at 5 %."""
    prompt_tokens_saved: float
    """Prompt tokens of the best untuned arm less those of the tuned one (or of zero-shot)."""


class Leak(_Part):
    """A held-out row that training or retrieval has seen; it is not asked."""

    kind: Literal["exact", "near"]
    held_out_line: int
    training_line: int


class Data(_Part):
    """What was asked, and what the arms could look at."""

    training_rows: int
    """Rows that training and retrieval see; the held-out rows are not among them."""
    held_out_rows: int
    questions: int
    """Of the held-out rows, those that were asked."""
    clusters: int
    """Groups of related rows among the questions."""
    clustered_by: Clustering
    passages: int = 0
    """Passages of the documents."""
    leaks_found: int = 0
    leaks: tuple[Leak, ...] = ()
    """The first hundred."""
    training_sha256: str
    held_out_sha256: str


class Retrieved(_Part):
    """One row or passage that was put into a prompt."""

    source: str
    """``training file, line 12`` or a document's name."""
    text: str


class Answered(_Part):
    """What one arm said to a question."""

    arm: str
    answer: str
    score: float
    retrieved: tuple[Retrieved, ...] = ()


class Disagreement(_Part):
    """A question on which the two arms of the verdict differ."""

    line: int
    question: str
    expected: str
    answers: tuple[Answered, Answered]
    """The better one first."""


class CurvePoint(_Part):
    """The tuned arm after training on a share of the rows."""

    rows: int
    score: Interval


class Forgetting(_Part):
    """Mean loss of base and tuned model on texts that are not the company's."""

    text_before: float
    text_after: float
    instructions_before: float
    instructions_after: float


class Costs(_Part):
    """What fine-tuning cost, and what it saves against the best untuned arm."""

    training_seconds: float
    trained_tokens: int
    prompt_tokens_saved_per_thousand: float
    answers_to_repay: int | None
    """Answers after which shorter prompts have saved as many tokens as training read; None where
    the tuned model's prompts are not shorter."""


class Reproduction(_Part):
    """What else someone needs to see the same figures."""

    seed: int
    max_tokens: int
    retriever: str
    embedder: str
    versions: dict[str, str]


class Report(_Part):
    """The whole report."""

    version: int = REPORT_VERSION
    comparison: str
    base_model: str
    tuned_model: str | None
    job: str | None
    checker: str
    binary: bool
    """Whether the checker says right or wrong; else it gives a score between 0 and 1."""
    reference: str
    """The arm that all differences are to: the tuned one, or before training the best."""
    data: Data
    verdict: Verdict
    arms: tuple[ArmResult, ...]
    disagreements: tuple[Disagreement, ...] = ()
    learning_curve: tuple[CurvePoint, ...] = ()
    forgetting: Forgetting | None = None
    costs: Costs | None = None
    reproduction: Reproduction
