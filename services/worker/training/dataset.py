"""A job's files become training and validation rows: read as streams, no file more than twice."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.worker.training.data import (
    BadData,
    Row,
    encoded_rows,
    held_out,
)
from services.worker.training.report import Reporter
from services.worker.training.rows import RowsWriter, TokenRows, gather
from shared.chat.encoder import ChatEncoder
from shared.files.normalised import NormalisedRow


@dataclass(frozen=True)
class DataSet:
    """What a job trains on and what it is measured on."""

    train: TokenRows
    validation: TokenRows
    sha256: str
    """Hash of the files."""

    @property
    def tokens_sha256(self) -> str:
        """Hash of the token ids and answer marks of both."""
        return hashlib.sha256(f"{self.train.sha256}{self.validation.sha256}".encode()).hexdigest()


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

    def read(self, train: Path, validation: Path | None) -> DataSet:
        """Tokenise both files, or hold a part of the first out; raises BadData and Interrupted."""
        files = hashlib.sha256()
        first = self._scan(train, "training_file", files, digests=validation is None)
        if validation is None:
            rows, held = self._split(train, first)
        else:
            second = self._scan(validation, "validation_file", files, digests=False)
            rows = self._all(train, "training_file", first.rows)
            held = self._all(validation, "validation_file", second.rows)
        return DataSet(rows, held, files.hexdigest())

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

    def _all(self, path: Path, param: str, total: int) -> TokenRows:
        return gather(self._encoded(path, param, total), self.scratch)

    def _split(self, path: Path, scan: _Scan) -> tuple[TokenRows, TokenRows]:
        out = held_out(scan.digests)
        with RowsWriter(self.scratch) as train, RowsWriter(self.scratch) as held:
            for number, row in enumerate(self._encoded(path, "training_file", scan.rows)):
                (held if out[number] else train).add(row)
                if number == 0 and not out.any():
                    held.add(row)  # one distinct row: it validates on itself
            return train.finish(), held.finish()

    def _encoded(self, path: Path, param: str, total: int) -> Iterator[Row]:
        rows = encoded_rows(path, self.encoder, self.context_length, param)
        for done, row in enumerate(rows):
            self.report.working("reading", done, total)
            yield row


def _digest(line: bytes, number: int, param: str) -> str:
    try:
        return NormalisedRow.model_validate_json(line).digest()
    except ValueError:  # whose text may quote the row
        raise BadData(f"Row {number} is not a normalised row.", param) from None
