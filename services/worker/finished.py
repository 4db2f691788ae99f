"""The result of a finished training, kept beside its checkpoints until the job has ended.

``attempts/<job>/<attempt>/finished/`` is written last, when every adapter folder has its manifest.
A later attempt of the job that finds it publishes it, and trains nothing again: so an inference
service that is away, a lost worker or a refused adapter never costs the training.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.worker.export_check import InvalidAdapter, check_adapter
from services.worker.spec import DoneMessage
from services.worker.workplace import Workplace, earlier_attempts, installed_base
from shared.jobs.models import FineTuningJob
from shared.storage import CorruptArtifact, publish_folder, verify_manifest, write_manifest
from shared.telemetry import log_event

FINISHED = "finished"
_DONE = "done.json"
_CHECKS = "served_check.json"
_QUESTIONS = "questions.json"

log = logging.getLogger(__name__)


def adapter_folders(done: DoneMessage) -> list[Path]:
    """Return the folders of the final adapter and of the checkpoints' adapters, in this order."""
    return [done.adapter_dir, *(checkpoint.path for checkpoint in done.checkpoints)]


def keep(place: Workplace, job: FineTuningJob, done: DoneMessage) -> DoneMessage:
    """Make a trainer's result durable inside its attempt's folder; return it from there."""
    entry, base_sha256 = installed_base(place, job)
    folder = place.store.attempt(job.id, job.attempt).absolute()
    meta = {
        "base_model": job.base_model,
        "base_sha256": base_sha256,
        "profile_sha256": entry.profile.sha256(),
        "data_sha256": done.data_sha256,
        "job": job.id,
        "attempt": job.attempt,
    }
    for adapter in adapter_folders(done):
        write_manifest(adapter, meta)
    with publish_folder(folder / FINISHED, meta) as filling:
        shutil.copyfile(done.check_file, filling / _CHECKS)
        update = {"check_file": folder / FINISHED / _CHECKS}
        if done.questions_file:
            shutil.copyfile(done.questions_file, filling / _QUESTIONS)
            update["questions_file"] = folder / FINISHED / _QUESTIONS
        inside = done.model_copy(update=update)
        # Relative: the store may be reached by another path when this is read.
        relative = _with_paths(inside, lambda path: path.relative_to(folder))
        (filling / _DONE).write_text(relative.model_dump_json())
    return inside


def find(place: Workplace, job: FineTuningJob) -> DoneMessage | None:
    """Return what an earlier attempt of this job finished, if it is whole and may be published.

    It must be of this base model's weights and inside the profile as it is now; what is not is left
    where it is, and the job is trained anew.
    """
    for folder in earlier_attempts(place.store, job):
        if not (folder / FINISHED).is_dir():
            continue
        try:
            return _read(place, job, folder)
        except (CorruptArtifact, InvalidAdapter, ValueError, OSError) as error:
            data = {"attempt_dir": folder.name, "reason": str(error)}
            log.warning(
                "a finished training cannot be used",
                extra=log_event("finished_training_unusable", **data),
            )
    return None


def _read(place: Workplace, job: FineTuningJob, folder: Path) -> DoneMessage:
    """Read and verify one finished training; raises what ``find`` catches."""
    entry, base_sha256 = installed_base(place, job)
    meta = verify_manifest(folder / FINISHED)
    if (meta.get("job"), meta.get("base_sha256")) != (job.id, base_sha256):
        raise CorruptArtifact("it is of another job, or of other base weights")
    done = DoneMessage.model_validate_json((folder / FINISHED / _DONE).read_bytes())
    done = _with_paths(done, lambda path: folder / path)
    for adapter in adapter_folders(done):
        verify_manifest(adapter)
        check_adapter(adapter, entry)
    return done


def _with_paths(done: DoneMessage, change: Callable[[Path], Path]) -> DoneMessage:
    update: dict[str, Any] = {
        "adapter_dir": change(done.adapter_dir),
        "check_file": change(done.check_file),
        "questions_file": change(done.questions_file) if done.questions_file else None,
        "checkpoints": tuple(
            checkpoint.model_copy(update={"path": change(checkpoint.path)})
            for checkpoint in done.checkpoints
        ),
    }
    return done.model_copy(update=update)
