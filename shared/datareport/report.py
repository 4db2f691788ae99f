"""What a data report says: figures, and findings by line; never a row's text."""

from typing import Literal, NamedTuple

from pydantic import BaseModel

Severity = Literal["error", "warn", "info"]
Param = Literal["training_file", "validation_file"]

MAX_LINES = 50
"""A finding names so many lines; its count goes on."""


class Kind(NamedTuple):
    """How bad a kind of finding is, and what it is called."""

    severity: Severity
    title: str


KINDS: dict[str, Kind] = {
    "too_long": Kind("error", "longer than the base model's context"),
    "no_answer": Kind("error", "no answer to learn from"),
    "unmaskable": Kind("error", "answer cannot be told from the rest of the conversation"),
    "secret": Kind("warn", "looks like a key, token or password"),
    "card_number": Kind("warn", "credit card number"),
    "my_number": Kind("warn", "Individual Number (My Number)"),
    "bank_account": Kind("warn", "bank account number (IBAN)"),
    "email_address": Kind("warn", "e-mail address"),
    "phone_number": Kind("warn", "telephone number"),
    "contradiction": Kind("warn", "same instruction as another line, different answer"),
    "empty_answer": Kind("warn", "answer without a word in it"),
    "boilerplate_answer": Kind("warn", 'placeholder answer ("N/A", "TODO", "わかりません" …)'),
    "validation_overlap": Kind("warn", "validation row that is also trained on"),
    "validation_near_overlap": Kind("warn", "validation row nearly the same as a training row"),
    "duplicate": Kind("warn", "exactly the same as another line"),
    "near_duplicate": Kind("info", "nearly the same as another line"),
    "repeated_answer": Kind("info", "same answer as many other rows"),
    "rare_language": Kind("info", "in a language that is rare in this file"),
    "answer_language": Kind("info", "answer in another language than the instruction"),
}
"""Every kind, worst first. ``error`` means: a job with this file fails."""


class Finding(BaseModel):
    """One kind of thing found in one file."""

    kind: str
    severity: Severity
    file: Param
    count: int
    lines: list[int]
    """The first ``MAX_LINES`` of them."""
    like: list[int] | None = None
    """For each of ``lines`` the line it repeats, overlaps or contradicts."""


class Tokens(BaseModel):
    """Lengths of a file's usable rows in tokens of the base model, template included."""

    total: int
    min: int
    median: int
    p95: int
    max: int
    answers: int
    """Tokens that carry a loss."""
    answer_share: float
    context_share: float
    """The longest row's share of the context."""


class Figures(BaseModel):
    """What is in one file."""

    rows: int
    tokens: Tokens | None = None
    """None where the base model's tokenizer was not at hand."""
    sampled_rows: int | None = None
    """So many rows, spread over the file, had their language told; None: all of them."""
    languages: dict[str, int] = {}
    """Rows by language of the instruction, most frequent first; ``other`` is too short to tell."""


class DataReport(BaseModel):
    """What the check of a job's files found. Usable when no finding is an error."""

    base_model: str | None = None
    context_length: int | None = None
    training_file: Figures
    validation_file: Figures | None = None
    n_epochs: int | None = None
    estimated_trained_tokens: int | None = None
    findings: list[Finding] = []
    limits: list[str] = []
    """What was not looked at, because the file is very large."""

    def about(self, param: Param) -> "DataReport":
        """Return the part that concerns one file alone, to be kept with it."""
        figures = self.training_file if param == "training_file" else self.validation_file
        return DataReport(
            base_model=self.base_model,
            context_length=self.context_length,
            training_file=figures or Figures(rows=0),
            findings=[
                finding.model_copy(update={"file": "training_file"})
                for finding in self.findings
                if finding.file == param and not finding.kind.startswith("validation_")
            ],
            limits=self.limits,
        )


class Found:
    """Collects findings row by row; memory stays bounded however many there are."""

    def __init__(self) -> None:
        self._findings: dict[tuple[Param, str], Finding] = {}

    def add(self, file: Param, kind: str, line: int, like: int | None = None) -> None:
        """Take in one finding."""
        finding = self._findings.setdefault(
            (file, kind),
            Finding(
                kind=kind,
                severity=KINDS[kind].severity,
                file=file,
                count=0,
                lines=[],
                like=None if like is None else [],
            ),
        )
        finding.count += 1
        if len(finding.lines) < MAX_LINES:
            finding.lines.append(line)
            if finding.like is not None and like is not None:
                finding.like.append(like)

    def ordered(self) -> list[Finding]:
        """Return the findings, worst kind first."""
        order = list(KINDS)
        return sorted(self._findings.values(), key=lambda f: (order.index(f.kind), f.file))
