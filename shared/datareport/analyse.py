"""The data report of a training file, and of its validation file: one pass over each, streaming.

Memory is bounded by the checks' own limits (hashes and sketches for each row, never its text).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shared.datareport.answers import Answers
from shared.datareport.duplicates import Duplicates
from shared.datareport.language import Languages
from shared.datareport.report import MAX_LINES, DataReport, Figures, Found, Param
from shared.datareport.rows import Row, read
from shared.datareport.sensitive import kinds_in

if TYPE_CHECKING:
    from shared.datareport.lengths import Lengths


@dataclass(frozen=True)
class Base:
    """The base model, where its tokenizer is at hand."""

    name: str
    folder: Path
    context_length: int


@dataclass
class Refusals:
    """The rows of one file that no job can train, in words."""

    count: int = 0
    sentences: list[str] = field(default_factory=list)
    """The first ``MAX_LINES``."""

    def add(self, line: int, reason: str) -> None:
        """Take in one row."""
        self.count += 1
        if len(self.sentences) < MAX_LINES:
            self.sentences.append(f"Line {line}: {reason}.")

    def text(self) -> str:
        """Return all of it in one text."""
        hidden = self.count - len(self.sentences)
        more = [f"And {hidden} more."] if hidden else []
        return " ".join(self.sentences + more)


@dataclass(frozen=True)
class Analysis:
    """The report, and what makes a job with these files fail."""

    report: DataReport
    refusals: dict[Param, Refusals]


def analyse(
    training: Path,
    validation: Path | None = None,
    *,
    base: Base | None = None,
    n_epochs: int | None = None,
) -> Analysis:
    """Read the normalised rows of both files and report what is in them.

    Without a ``base`` there are no token figures, and no row is refused.
    """
    found = Found()
    duplicates = Duplicates(found)
    paths: dict[Param, Path] = {"training_file": training}
    if validation is not None:
        paths["validation_file"] = validation
    figures, refusals = {}, {}
    for file, path in paths.items():
        refusals[file] = Refusals()
        check = _FileCheck(file, found, duplicates, base, refusals[file])
        for row in read(path):
            check.row(row)
        figures[file] = check.done()
    duplicates.done()
    report = DataReport(
        base_model=base.name if base else None,
        context_length=base.context_length if base else None,
        training_file=figures["training_file"],
        validation_file=figures.get("validation_file"),
        n_epochs=n_epochs,
        estimated_trained_tokens=_estimate(figures["training_file"], n_epochs),
        findings=found.ordered(),
        limits=duplicates.limits() + _sampled(figures),
    )
    return Analysis(report, refusals)


def _sampled(figures: Mapping[Param, Figures]) -> list[str]:
    return [
        f"Languages were told in {part.sampled_rows:,} of the {part.rows:,} rows of the "
        f"{file.replace('_', ' ')}."
        for file, part in figures.items()
        if part.sampled_rows is not None
    ]


class _FileCheck:
    """All checks of one file."""

    def __init__(
        self,
        file: Param,
        found: Found,
        duplicates: Duplicates,
        base: Base | None,
        refusals: Refusals,
    ) -> None:
        self._file = file
        self._found = found
        self._duplicates = duplicates
        self._refusals = refusals
        self._rows = 0
        self._answers = Answers(found, file)
        self._languages = Languages(found, file)
        self._lengths = _lengths(base) if base else None

    def row(self, row: Row) -> None:
        self._rows += 1
        if self._lengths is not None:
            self._tokenise(self._lengths, row)
        self._answers.row(row)
        self._languages.row(row)
        self._duplicates.row(self._file, row)
        text = "\n\n".join(str(message["content"]) for message in row.messages)
        for kind in kinds_in(text):
            self._found.add(self._file, kind, row.line)

    def _tokenise(self, lengths: "Lengths", row: Row) -> None:
        refusal = lengths.row(row)
        if refusal is not None:
            self._found.add(self._file, refusal.kind, row.line)
            self._refusals.add(row.line, refusal.reason)

    def done(self) -> Figures:
        self._answers.done()
        self._languages.done()
        looked_at = self._languages.looked_at
        return Figures(
            rows=self._rows,
            sampled_rows=looked_at if looked_at < self._rows else None,
            tokens=self._lengths.figures() if self._lengths else None,
            languages=self._languages.counts(),
        )


def _lengths(base: Base) -> "Lengths":
    # Needs the tokenizers, which `tailor file check` may have to do without.
    from shared.datareport.lengths import Lengths  # noqa: PLC0415

    return Lengths(base.folder, base.context_length)


def _estimate(figures: Figures, n_epochs: int | None) -> int | None:
    """Return about how many tokens training will read: every row in every epoch.

    Fewer when rows are held out for validation, or when training stops early.
    """
    return figures.tokens.total * n_epochs if figures.tokens and n_epochs else None
