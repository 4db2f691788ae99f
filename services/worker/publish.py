"""Publication: from the trainer's folders to a model that can be called.

Check from disk, a link under an id of its own, served equals trained; then one transaction makes
the adapter rows, the result file and ``succeeded`` visible together, or nothing.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, cast, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from services.worker.export_check import InvalidAdapter, check_adapter
from services.worker.failures import AttemptFailed, Cause
from services.worker.feed import as_openai_metrics
from services.worker.generated import Generated
from services.worker.result_file import write_result_file
from services.worker.served_check import (
    Inference,
    InferenceAway,
    Refused,
    ServedDiffers,
    check_served,
)
from services.worker.spec import (
    KEPT_EPOCH_ENDS,
    CheckpointAdapter,
    DoneMessage,
    ServedCheck,
)
from shared.adapters.models import Adapter
from shared.catalog import BaseModelEntry
from shared.clock import Clock
from shared.errors import LeaseLost
from shared.files.models import StoredFile
from shared.ids import new_id
from shared.jobs.lease import renew
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State
from shared.jobs.transitions import move, record
from shared.storage import (
    MANIFEST,
    CorruptArtifact,
    LocalStore,
    publish_folder,
    verify_manifest,
)
from shared.telemetry import log_event
from shared.tenants.models import Tenant

BELIEVED_REFUSALS = 3
"""So many refusals in a row of an inference service that calls itself ready are a finding."""
OVER_BUDGET = (
    "No checkpoint is within the forgetting budget; the model is the one that forgot least. "
    "A smaller learning rate or fewer epochs may help."
)
UNANSWERED = (
    "No held-out question was answered in time, so there is no figure of the model's own answers. "
    "A comparison of this job has them."
)
_CHECKS: TypeAdapter[list[ServedCheck]] = TypeAdapter(list[ServedCheck])
_REPORTED = {
    "base_loss",
    "base_accuracy",
    "final_loss",
    "final_accuracy",
    "step",
    "steps_this_attempt",
    "total_steps",
    "best_step",
    "stopped_early",
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """What is on disk and checked, waiting for its rows."""

    done: DoneMessage
    adapter_id: str
    meta: dict[str, Any]
    """The adapter's manifest's: what it was trained on and for."""
    checkpoints: tuple[tuple[str, CheckpointAdapter], ...]
    """Adapter id and figures of each callable checkpoint."""
    result_file: StoredFile


def prepare(
    store: LocalStore,
    job: FineTuningJob,
    entry: BaseModelEntry,
    done: DoneMessage,
    *,
    confirm: Callable[[], None],
) -> Publication:
    """Put the checked adapters and the result file in their places, under ids nobody knows yet.

    ``done`` is kept (see finished.py) and stays as it is. ``confirm`` renews the lease just before
    anything leaves the attempt's folder. A worker that sleeps past its lease between the two leaves
    folders without a row, which nobody can call and the scheduler removes after a day. Raises
    AttemptFailed when a folder does not hold what it must.
    """
    chosen = done.checkpoints[-KEPT_EPOCH_ENDS:]
    folders = [done.adapter_dir, *(checkpoint.path for checkpoint in chosen)]
    metas = [_check(folder, entry) for folder in folders]
    confirm()
    adapter_id, *checkpoint_ids = [
        _place(store, folder, meta | {"attempt": job.attempt, "trained_by": meta["attempt"]})
        for folder, meta in zip(folders, metas, strict=True)
    ]
    return Publication(
        done=done,
        adapter_id=adapter_id,
        meta=metas[0],
        checkpoints=tuple(zip(checkpoint_ids, chosen, strict=True)),
        result_file=write_result_file(store, job, done),
    )


def check(
    publication: Publication, inference: Inference, entry: BaseModelEntry
) -> dict[str, float]:
    """Compare served with trained, once; return the distances. May block for minutes."""
    checks = _CHECKS.validate_json(publication.done.check_file.read_bytes())
    tolerance = entry.serving.logprob_tolerance
    return check_served(inference, publication.adapter_id, checks, tolerance)


def await_served(
    check: Callable[[], dict[str, float]],
    *,
    wait: Callable[[], None],
    deadline: float,
    clock: Clock,
) -> dict[str, float]:
    """Return the distances that ``check`` finds; raises AttemptFailed.

    While inference is away ``check`` is repeated after ``wait``, until ``deadline``. One refusal
    proves nothing, since an engine that ends refuses too; several in a row are believed.
    """
    refusals = 0
    while True:
        try:
            return check()
        except ServedDiffers as error:
            raise _differs(error) from error
        except InferenceAway as error:
            log.warning("inference away", extra=log_event("inference_away", reason=str(error)))
            refusals = refusals + 1 if isinstance(error, Refused) else 0
            if isinstance(error, Refused) and refusals == BELIEVED_REFUSALS:
                raise _refused(error) from error
            if clock() >= deadline:
                message = "The inference service stayed away; the job is published later"
                raise AttemptFailed(Cause.INFERENCE_AWAY, message) from error
        wait()


def commit(
    session: Session,
    job: FineTuningJob,
    publication: Publication,
    distances: dict[str, float],
    generated: Generated | None,
) -> FineTuningJob:
    """Make everything visible at once: rows, events, ``succeeded``. Raises LeaseLost."""
    # First, so that the second try after a commit whose answer was lost ends here.
    if renew(session, job.id, job.attempt) is None:
        raise LeaseLost(f"job {job.id} is no longer ours to publish")
    done = publication.done
    tenant = session.get_one(Tenant, job.tenant_id)
    name = model_name(job, tenant, publication.adapter_id)
    metrics = done.model_dump(include=_REPORTED) | unchosen(done) | distances
    if generated:
        metrics["generated"] = generated.figures
    data_format = session.get_one(StoredFile, job.training_file_id).report.get("format")
    session.add(publication.result_file)
    session.flush()
    if done.over_budget:
        record(session, job, OVER_BUDGET, level="warn")
    if done.questions_file and not generated:
        record(session, job, UNANSWERED, level="warn")
    record(session, job, f"New fine-tuned model created: {name}")
    succeeded = move(
        session,
        job.id,
        State.SUCCEEDED,
        "The job has successfully completed",
        attempt=job.attempt,
        metrics=metrics,
        examples=with_answers(generated),
        trained_tokens=done.trained_tokens,
        result_file_id=publication.result_file.id,
    )
    final = _row(
        publication,
        job,
        publication.adapter_id,
        model=name,
        step=done.best_step,
        metrics=metrics,
        data_format=data_format,
    )
    session.add(final)
    session.add_all(
        _row(
            publication,
            job,
            adapter_id,
            model=f"{name}:ckpt-step-{checkpoint.step}",
            step=checkpoint.step,
            metrics=as_openai_metrics(checkpoint.metrics),
            kind="checkpoint",
            data_format=data_format,
        )
        for adapter_id, checkpoint in publication.checkpoints
    )
    session.flush()
    return succeeded


def with_answers(generated: Generated | None) -> ColumnElement[Any]:
    """Return the job's examples with the answers that are kept beside what is there."""
    kept = {"answers": generated.answers.model_dump(mode="json")} if generated else {}
    return func.coalesce(FineTuningJob.examples, cast({}, JSONB)).concat(cast(kept, JSONB))


def unchosen(done: DoneMessage) -> dict[str, Any]:
    """Return the figures of rows that chose nothing, and of what was forgotten, for the metrics."""
    reported = done.reported.model_dump() if done.reported else {}
    forgetting = {"forgetting": done.forgetting.model_dump()} if done.forgetting else {}
    on = "test" if done.reported else "validation"
    apart = {"test_row_numbers": done.test_row_numbers} if done.reported else {}
    return {"reported_on": on} | reported | apart | forgetting


def model_name(job: FineTuningJob, tenant: Tenant, adapter_id: str) -> str:
    """Return ``ft:base:org:suffix:8chars``; the company's name where it fits into a URL."""
    organization = tenant.name if _PLAIN_NAME.fullmatch(tenant.name) else tenant.id
    return f"ft:{job.base_model}:{organization}:{job.suffix or ''}:{adapter_id[-8:].lower()}"


def _differs(finding: Exception) -> AttemptFailed:
    message = f"The published model does not answer as trained: {finding}"
    return AttemptFailed(Cause.SERVED_DIFFERS, message)


def _refused(finding: Refused) -> AttemptFailed:
    match finding.code:
        case "base_not_served":
            message = "The inference service does not serve this base model; published later"
            return AttemptFailed(Cause.BASE_NOT_SERVED, message)
        case "adapter_refused":
            message = f"The inference service refuses the trained model: {finding}"
            return AttemptFailed(Cause.ADAPTER_REFUSED, message)
    return _differs(finding)


def _check(folder: Path, entry: BaseModelEntry) -> dict[str, Any]:
    """Return the meta of a folder's manifest; raises AttemptFailed."""
    try:
        meta = verify_manifest(folder)
        check_adapter(folder, entry)
    except (InvalidAdapter, CorruptArtifact) as error:
        raise AttemptFailed(Cause.INVALID_ADAPTER, f"The adapter is invalid: {error}") from error
    return meta


def _place(store: LocalStore, folder: Path, meta: dict[str, Any]) -> str:
    """Publish a finished folder's files under an id of its own, for ever immutable; return the id.

    The files are linked, not copied: a result that waits for inference takes its space once.
    """
    adapter_id = new_id("ad_")
    ignored = shutil.ignore_patterns(MANIFEST)
    with publish_folder(store.adapter(adapter_id), meta) as filling:
        shutil.copytree(folder, filling, ignore=ignored, copy_function=_link, dirs_exist_ok=True)
    return adapter_id


def _link(source: str, target: str) -> None:
    """Give a file a second name; copy it where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _row(
    publication: Publication,
    job: FineTuningJob,
    adapter_id: str,
    *,
    model: str,
    step: int,
    metrics: dict[str, Any],
    data_format: str | None,
    kind: str = "final",
) -> Adapter:
    return Adapter(
        id=adapter_id,
        tenant_id=job.tenant_id,
        job_id=job.id,
        kind=kind,
        model=model,
        step=step,
        base_model=job.base_model,
        base_sha256=publication.meta["base_sha256"],
        profile_sha256=publication.meta["profile_sha256"],
        metrics=metrics,
        data_format=data_format,
    )
