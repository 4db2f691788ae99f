"""Rules for files: what is accepted, which are visible, and when one may be deleted.

A file that a live job or comparison uses cannot be deleted. Deleting marks the row; the scheduler
erases bytes.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine, Select, func, or_, select
from sqlalchemy.orm import Session

from services.api.files.checking import FileChecks
from services.api.files.schemas import MAX_EXPIRY_SECONDS, MIN_EXPIRY_SECONDS, PURPOSES, RowOut
from services.api.files.upload import Upload
from services.api.pagination import Order, page
from shared.clock import now
from shared.comparisons.models import Comparison
from shared.comparisons.state import TERMINAL as COMPARED
from shared.db import tenant_transaction
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.files.documents.report import DocumentReport
from shared.files.models import StoredFile
from shared.files.normalised import NormalisedRow
from shared.files.report import Report
from shared.ids import new_id
from shared.jobs.models import FineTuningJob
from shared.jobs.state import TERMINAL
from shared.storage import LocalStore, publish_folder
from shared.tenants.models import owned_by


def visible(tenant_id: str) -> Select[StoredFile]:
    """Select a tenant's files that are neither deleted nor expired."""
    return owned_by(tenant_id, StoredFile).where(
        StoredFile.deleted_at.is_(None),
        or_(StoredFile.expires_at.is_(None), StoredFile.expires_at > func.clock_timestamp()),
    )


def files(
    session: Session,
    tenant_id: str,
    purpose: str | None,
    after: str | None,
    *,
    limit: int,
    order: Order,
) -> tuple[Sequence[StoredFile], bool]:
    """Return a page of a tenant's files, perhaps of one purpose, and whether there are more."""
    query = visible(tenant_id)
    if purpose is not None:
        query = query.where(StoredFile.purpose == purpose)
    return page(session, query, StoredFile.id, after=after, limit=limit, order=order)


def find(session: Session, tenant_id: str, file_id: str, param: str = "id") -> StoredFile:
    """Return one file; raise NotFound."""
    file = session.scalar(visible(tenant_id).where(StoredFile.id == file_id))
    if file is None:
        raise NotFound(f"No such file: {file_id}", param, "file_not_found")
    return file


async def check(
    checks: FileChecks, tenant_id: str, upload: Upload
) -> Report | DocumentReport | None:
    """Check an upload before it is kept; return a training file's or a document's report."""
    _expiry(upload.fields, now())
    purpose = _purpose(upload)
    if purpose == "user_data":
        return await _document(checks, tenant_id, upload)
    if purpose != "fine-tune":
        return None
    report = await checks.check(tenant_id, upload.path, upload.filename, _read_path(upload))
    if not report.ok:
        raise InvalidRequest(report.summary(), "file", "invalid_training_file")
    return report


async def _document(checks: FileChecks, tenant_id: str, upload: Upload) -> DocumentReport:
    target = _read_path(upload)
    report = await checks.read_document(tenant_id, upload.path, upload.filename, target)
    if report.error:
        raise InvalidRequest(f"The file {report.error}.", "file", "invalid_document")
    return report


def keep(
    engine: Engine,
    store: LocalStore,
    tenant_id: str,
    upload: Upload,
    report: Report | DocumentReport | None,
) -> StoredFile:
    """Move a checked upload into its folder and record it."""
    purpose = _purpose(upload)
    expires_at = _expiry(upload.fields, now())
    file_id = new_id("file-")
    with publish_folder(store.upload(file_id), {"file_id": file_id}) as unfinished:
        upload.path.rename(unfinished / "raw")
        if report:
            _read_path(upload).rename(unfinished / _READ_AS[purpose])
    file = StoredFile(
        id=file_id,
        tenant_id=tenant_id,
        filename=upload.filename,
        purpose=purpose,
        bytes=upload.bytes,
        sha256=upload.sha256,
        status="processed",
        report=report.model_dump() if report else {},
        expires_at=expires_at,
    )
    # A commit that fails may have been made all the same, so the folder stays: the scheduler
    # removes one without a row after a day.
    with tenant_transaction(engine, tenant_id) as session:
        session.add(file)
    return file


def delete(session: Session, tenant_id: str, file_id: str) -> None:
    """Mark a file as deleted; raise Conflict while a job or comparison that goes on uses it."""
    query = visible(tenant_id).where(StoredFile.id == file_id)
    # The lock is held against a job being created with this file at the same moment.
    file = session.scalar(query.with_for_update())
    if file is None:
        raise NotFound(f"No such file: {file_id}", "id", "file_not_found")
    job = session.scalar(_live_jobs_with(tenant_id, file_id))
    if job is not None:
        raise _in_use(f"job {job.id}")
    comparison = session.scalar(_live_comparisons_with(tenant_id, file_id))
    if comparison is not None:
        raise _in_use(f"comparison {comparison.id}")
    file.deleted_at = session.scalar(select(func.clock_timestamp()))


def raw_path(store: LocalStore, file: StoredFile) -> Path:
    """Return where a file's bytes lie; raise NotFound when they are gone."""
    path = store.upload(file.id) / "raw"
    if not path.is_file():
        raise NotFound(f"No such file: {file.id}", "id", "file_not_found")
    return path


def first_rows(store: LocalStore, file: StoredFile, limit: int) -> tuple[list[RowOut], bool]:
    """Return a training file's first rows, and whether there are more; raise NotFound, Conflict."""
    if file.purpose != "fine-tune":
        raise Conflict(f"{file.id} is no training file: it has no rows.", "id", "not_rows")
    path = store.upload(file.id) / "rows.jsonl"
    if not path.is_file():
        raise NotFound(f"No such file: {file.id}", "id", "file_not_found")
    with path.open(encoding="utf-8") as lines:
        rows = [NormalisedRow.model_validate_json(line) for line in islice(lines, limit)]
    return [RowOut.of(row) for row in rows], file.report["rows"] > len(rows)


def _live_jobs_with(tenant_id: str, file_id: str) -> Select[FineTuningJob]:
    uses = or_(
        FineTuningJob.training_file_id == file_id, FineTuningJob.validation_file_id == file_id
    )
    return (
        owned_by(tenant_id, FineTuningJob)
        .where(uses, FineTuningJob.state.not_in(TERMINAL))
        .limit(1)
    )


def _live_comparisons_with(tenant_id: str, file_id: str) -> Select[Comparison]:
    uses = or_(
        Comparison.training_file_id == file_id,
        Comparison.held_out_file_id == file_id,
        Comparison.document_file_ids.contains([file_id]),
    )
    return owned_by(tenant_id, Comparison).where(uses, Comparison.state.not_in(COMPARED)).limit(1)


def _in_use(by: str) -> Conflict:
    return Conflict(
        f"The file is in use by the {by}; cancel it or wait for its end.", "id", "file_in_use"
    )


def _purpose(upload: Upload) -> str:
    purpose = upload.fields.get("purpose", "")
    if purpose not in PURPOSES:
        raise InvalidRequest(f"'purpose' must be one of {', '.join(PURPOSES)}.", "purpose")
    if upload.bytes == 0:
        raise InvalidRequest("The file is empty.", "file", "invalid_training_file")
    return purpose


_READ_AS = {"fine-tune": "rows.jsonl", "user_data": "passages.jsonl"}


def _read_path(upload: Upload) -> Path:
    return upload.path.with_name("read.jsonl")


def _expiry(fields: dict[str, str], created_at: datetime) -> datetime | None:
    seconds = fields.get("expires_after[seconds]")
    if seconds is None:
        return None
    if fields.get("expires_after[anchor]") != "created_at":
        raise InvalidRequest("'anchor' must be 'created_at'.", "expires_after.anchor")
    wanted = int(seconds) if seconds.isdecimal() and len(seconds) <= 10 else 0
    if not MIN_EXPIRY_SECONDS <= wanted <= MAX_EXPIRY_SECONDS:
        raise InvalidRequest(
            f"'seconds' must be from {MIN_EXPIRY_SECONDS} to {MAX_EXPIRY_SECONDS}.",
            "expires_after.seconds",
        )
    return created_at + timedelta(seconds=wanted)


def fine_tuning_file(session: Session, tenant_id: str, file_id: str, param: str) -> StoredFile:
    """Return a file of rows that something new will read; raise NotFound, InvalidRequest."""
    return file_of(session, tenant_id, file_id, param, "fine-tune")


def file_of(session: Session, tenant_id: str, file_id: str, param: str, purpose: str) -> StoredFile:
    """Return a file of this purpose, which cannot be deleted before the transaction ends.

    Raises NotFound, and InvalidRequest for one of another purpose; both name ``param``.
    """
    query = visible(tenant_id).where(StoredFile.id == file_id)
    # The shared lock keeps the file from being deleted until what will read it is visible.
    file = session.scalar(query.with_for_update(read=True))
    if file is None:
        raise NotFound(f"No such file: {file_id}", param, "file_not_found")
    if file.purpose != purpose:
        raise InvalidRequest(
            f"The file's purpose is '{file.purpose}', not '{purpose}'.", param, f"invalid_{param}"
        )
    return file
