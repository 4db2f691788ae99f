"""What validating a training file found: counts, and problems by line, never a row's text."""

from typing import Literal

from pydantic import BaseModel, Field

Format = Literal["chat", "instruction", "prompt"]
MAX_PROBLEMS = 50
MIN_ROWS = 10
"""A training file with fewer usable rows cannot start a job (``invalid_n_examples``)."""


def too_few_rows(rows: int) -> dict[str, str] | None:
    """Return a job's error when its training file has so many rows only; None when it is enough."""
    if rows >= MIN_ROWS:
        return None
    message = f"Training file has {rows} example(s), but must have at least {MIN_ROWS} examples"
    return {"code": "invalid_n_examples", "param": "training_file", "message": message}


class Problem(BaseModel):
    """One thing wrong, and where."""

    line: int = Field(ge=1)
    """Line of the user's file; in a workbook the row's number."""
    message: str

    def __str__(self) -> str:
        return f"Line {self.line}: {self.message}"


class Report(BaseModel):
    """What is in a training file. Usable when there are no errors."""

    format: Format | None = None
    rows: int = 0
    """Usable rows."""
    errors: list[Problem] = []
    """The first ``MAX_PROBLEMS`` of them."""
    error_count: int = 0
    """All of them."""
    warnings: list[Problem] = []
    truncated: bool = False
    """There are more errors than these."""

    @property
    def ok(self) -> bool:
        """Say whether the file can be used."""
        return not self.errors

    def summary(self, shown: int = 10) -> str:
        """Return the first errors in one text, for an error message."""
        text = " ".join(f"{problem}." for problem in self.errors[:shown])
        hidden = self.error_count - min(shown, len(self.errors))
        return f"{text} And {hidden:,} more." if hidden > 0 else text

    def add_error(self, line: int, message: str) -> None:
        """Count an error, and record it up to ``MAX_PROBLEMS`` of them."""
        self.error_count += 1
        if len(self.errors) < MAX_PROBLEMS:
            self.errors.append(Problem(line=line, message=message))
        self.truncated = self.error_count > len(self.errors)

    def add_warning(self, line: int, message: str) -> None:
        """Record a warning, up to ``MAX_PROBLEMS`` of them."""
        if len(self.warnings) < MAX_PROBLEMS:
            self.warnings.append(Problem(line=line, message=message))
