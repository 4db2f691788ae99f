"""What a worker process works with, and what it hands to its trainer."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from services.worker import generated
from services.worker.comparing import asking
from services.worker.drain import Drain
from services.worker.failures import AttemptFailed, BackOff, Cause
from services.worker.metrics import Metrics
from services.worker.served_check import Inference, InferenceAway
from services.worker.settings import WorkerSettings
from services.worker.spec import TrainSpec
from services.worker.trainer import Trainer
from shared.catalog import BaseModelEntry, Catalog
from shared.errors import NotFound
from shared.jobs.hyperparameters import Hyperparameters
from shared.jobs.models import FineTuningJob
from shared.replicas.directory import Directory, NobodyServes
from shared.storage import LocalStore


@dataclass(frozen=True)
class Workplace:
    """What one worker process works with; ``engine`` was made in it (a fork must not share one)."""

    settings: WorkerSettings
    engine: Engine
    catalog: Catalog
    replicas: Directory
    trainer: Trainer
    drain: Drain
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def store(self) -> LocalStore:
        """The artifact store."""
        return LocalStore(self.settings.store_dir)

    def bases(self) -> list[str]:
        """Return the base models whose jobs are taken: what is trained on another could be neither
        checked nor called. Raises SQLAlchemy's errors.
        """
        ours = self.settings.worker_base_models
        return [base for base in self.replicas.bases() if not ours or base in ours]

    @contextmanager
    def inference(self, base_model: str, adapter_id: str) -> Iterator[Inference]:
        """Yield an inference process that serves ``base_model``; raises InferenceAway."""
        secret = self.settings.inference_secret.get_secret_value()
        try:
            with self.replicas.turn(base_model, adapter_id) as url:
                yield Inference(url, secret)
        except NobodyServes:
            raise InferenceAway(f"nobody serves `{base_model}` now") from None

    def inference_for(self, tenant_id: str, base_model: str, *, salt_key: str) -> asking.Inference:
        """The inference processes of ``base_model``, asked as a tenant's requests are.

        An adapter of its own has its own prefix cache; any unguessable ``salt_key`` will do.
        """
        secret = self.settings.inference_secret.get_secret_value()
        turn = partial(self.replicas.turn, base_model)
        return asking.Inference(turn, secret, tenant_id, salt_key, generated.IN_FLIGHT)

    @property
    def back_off(self) -> BackOff:
        """Waiting times after crashes, and while nothing can be published."""
        settings = self.settings
        return BackOff(
            settings.crash_backoff_seconds, random.uniform, settings.publish_give_up_seconds
        )


def make_spec(place: Workplace, job: FineTuningJob) -> TrainSpec:
    """Say what this attempt trains, where, and which earlier attempts it may resume."""
    settings, store = place.settings, place.store
    entry, base_sha256 = installed_base(place, job)
    attempt_dir = store.attempt(job.id, job.attempt)
    attempt_dir.mkdir(parents=True, exist_ok=True)
    validation = job.validation_file_id
    return TrainSpec(
        job_id=job.id,
        attempt=job.attempt,
        base_model=job.base_model,
        base_dir=entry.folder(settings.models_dir).absolute(),
        base_sha256=base_sha256,
        train_rows=rows_of(store, job.training_file_id),
        validation_rows=rows_of(store, validation) if validation else None,
        attempt_dir=attempt_dir.absolute(),
        resume_from=earlier_attempts(store, job),
        hyperparameters=Hyperparameters.model_validate(job.hyperparameters),
        seed=job.seed,
        micro_batch_divisor=job.micro_batch_divisor,
        checkpoint_seconds=settings.checkpoint_seconds,
        threads=settings.trainer_threads,
        scratch_dir=settings.scratch_dir.absolute() if settings.scratch_dir else None,
    )


def installed_base(place: Workplace, job: FineTuningJob) -> tuple[BaseModelEntry, str]:
    """Return the job's base model and the hash of its weights; raises AttemptFailed."""
    try:
        entry = place.catalog.get(job.base_model)
        (entry.folder(place.settings.models_dir) / "config.json").stat()
        return entry, entry.base_sha256
    except (NotFound, FileNotFoundError) as error:
        message = f"The base model `{job.base_model}` is not installed on this worker"
        raise AttemptFailed(Cause.BAD_CONFIGURATION, message, param="model") from error


def rows_of(store: LocalStore, file_id: str) -> Path:
    """Return where a file's normalised rows lie."""
    return (store.upload(file_id) / "rows.jsonl").absolute()


def earlier_attempts(store: LocalStore, job: FineTuningJob) -> tuple[Path, ...]:
    """Return the folders of the attempts before this one, newest first."""
    folders = (store.attempt(job.id, number) for number in range(job.attempt - 1, 0, -1))
    return tuple(folder.absolute() for folder in folders if folder.is_dir())
