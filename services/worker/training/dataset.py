"""A job's files become training, validation and test rows: read as streams, a few times each."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from services.worker.spec import TrainSpec
from services.worker.training.data import BadData, Row, encoded_rows, normalised_rows
from services.worker.training.report import Reporter
from services.worker.training.rows import RowsWriter, TokenRows, gather
from shared.chat.encoder import ChatEncoder
from shared.evidence.split import Part, groups_of, leave_out, split
from shared.files.normalised import NormalisedRow


@dataclass(frozen=True)
class HeldOut:
    """Rows of a file that nothing is trained on: those that report where there are some."""

    on: Literal["test", "validation"]
    path: Path
    rows: Sequence[int]
    """Their numbers in the file, from 0."""
    of: int
    """All rows of the file."""

    @property
    def test_row_numbers(self) -> tuple[int, ...]:
        """The test rows' numbers in the training file, from 1."""
        return tuple(row + 1 for row in self.rows) if self.on == "test" else ()


@dataclass(frozen=True)
class DataSet:
    """What a job trains on, what chooses its checkpoint, and what that is reported on."""

    train: TokenRows
    validation: TokenRows
    test: TokenRows
    """Empty where there are too few rows: then the validation rows are reported on."""
    held_out: HeldOut
    sha256: str
    """Hash of the files."""

    @property
    def all(self) -> tuple[TokenRows, ...]:
        """The parts that have rows."""
        return tuple(part for part in (self.train, self.validation, self.test) if len(part))

    @property
    def tokens_sha256(self) -> str:
        """Hash of the token ids and answer marks of all."""
        return hashlib.sha256("".join(part.sha256 for part in self.all).encode()).hexdigest()


@dataclass
class _Scan:
    """What a first look at a file finds."""

    rows: int = 0
    digests: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DataReader:
    """Reads rows.jsonl files for one job."""

    encoder: ChatEncoder
    context_length: int
    scratch: Path
    """Where the token ids lie while the job runs."""
    report: Reporter

    def read(self, spec: TrainSpec) -> DataSet:
        """Tokenise the job's rows in their parts; raises BadData and Interrupted."""
        path, validation = spec.train_rows, spec.validation_rows
        held_out, share = spec.hyperparameters.held_out, spec.hyperparameters.training_share
        files = hashlib.sha256()
        divided = validation is None or held_out > 0 or share < 1
        scan = self._scan(path, "training_file", files, digests=divided)
        parts = [Part.TRAIN] * scan.rows
        if divided:
            groups = groups_of(_Rows(path, self.report, scan.rows))
            parts = split(
                scan.digests,
                groups,
                held_out=held_out,
                validation=validation is None,
                seed=spec.seed,
            )
            if share < 1:
                parts = leave_out(parts, groups, share, spec.seed)
        train, held, test = self._divided(path, parts, itself=validation is None)
        unseen = _held_out(path, parts)
        if validation is not None:
            second = self._scan(validation, "validation_file", files, digests=False)
            held = gather(self._encoded(validation, "validation_file", second.rows), self.scratch)
            if not len(test):
                unseen = HeldOut("validation", validation, range(second.rows), second.rows)
        return DataSet(train, held, test, unseen, files.hexdigest())

    def _scan(self, path: Path, param: str, files: "hashlib._Hash", *, digests: bool) -> _Scan:
        """Count and hash a file's lines; take the rows' own hashes where they decide the split."""
        found, content = _Scan(), hashlib.sha256()
        with path.open("rb") as lines:
            for line in lines:
                self.report.working("reading", 0, found.rows)
                content.update(line)
                found.rows += 1
                if digests:
                    found.digests.append(_digest(line, found.rows, param))
        files.update(content.digest())
        return found

    def _divided(
        self, path: Path, parts: list[Part], *, itself: bool
    ) -> tuple[TokenRows, TokenRows, TokenRows]:
        """Tokenise the training file; one group alone validates on ``itself``: on its first row."""
        itself = itself and Part.VALIDATION not in parts
        with (
            RowsWriter(self.scratch) as train,
            RowsWriter(self.scratch) as held,
            RowsWriter(self.scratch) as test,
        ):
            writers = {Part.TRAIN: train, Part.VALIDATION: held, Part.TEST: test}
            for number, row in enumerate(self._encoded(path, "training_file", len(parts))):
                if writer := writers.get(parts[number]):
                    writer.add(row)
                if itself and parts[number] is Part.TRAIN:
                    held.add(row)
                    itself = False
            return train.finish(), held.finish(), test.finish()

    def _encoded(self, path: Path, param: str, total: int) -> Iterator[Row]:
        rows = encoded_rows(path, self.encoder, self.context_length, param)
        for done, row in enumerate(rows):
            self.report.working("reading", done, total)
            yield row


@dataclass(frozen=True)
class _Rows:
    """The rows of a file, as often as they are asked for; a sign of life between them."""

    path: Path
    report: Reporter
    total: int

    def __iter__(self) -> Iterator[NormalisedRow]:
        for done, row in enumerate(normalised_rows(self.path, "training_file")):
            self.report.working("reading", done, self.total)
            yield row


def _held_out(path: Path, parts: Sequence[Part]) -> HeldOut:
    """Return the test rows, else the validation rows; a file that validates on itself has none."""
    tested = [number for number, part in enumerate(parts) if part is Part.TEST]
    if tested:
        return HeldOut("test", path, tested, len(parts))
    chosen = [number for number, part in enumerate(parts) if part is Part.VALIDATION]
    return HeldOut("validation", path, chosen, len(parts))


def _digest(line: bytes, number: int, param: str) -> str:
    try:
        return NormalisedRow.model_validate_json(line).digest()
    except ValueError:  # whose text may quote the row
        raise BadData(f"Row {number} is not a normalised row.", param) from None
