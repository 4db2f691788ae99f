"""Fine-tuning through the official client, as a user does it."""

import time
from dataclasses import dataclass
from typing import Any

import openai

BASE_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Trained:
    """A succeeded job and what it was made of."""

    client: openai.OpenAI
    tenant_id: str
    file_id: str
    job_id: str
    model: str
    base_model: str = BASE_MODEL

    def own_file_ids(self) -> set[str]:
        """The files this tenant should see: its upload and the job's result."""
        job = self.client.fine_tuning.jobs.retrieve(self.job_id)
        return {self.file_id, *job.result_files}


def fine_tune(
    tenant, rows: bytes, suffix: str | None = None, base_model: str = BASE_MODEL, **hyperparameters
) -> Trained:
    """Upload ``rows``, train, and wait for the model."""
    file_id = upload(tenant.client, rows)
    job_id = create_job(
        tenant.client, file_id, suffix=suffix, base_model=base_model, **hyperparameters
    )
    model = wait_for_model(tenant.client, job_id)
    return Trained(tenant.client, tenant.id, file_id, job_id, model, base_model)


def upload(client: openai.OpenAI, rows: bytes) -> str:
    """Upload a training file and return its id."""
    return client.files.create(file=("質問.jsonl", rows), purpose="fine-tune").id


def create_job(
    client: openai.OpenAI,
    file_id: str,
    *,
    suffix: str | None = None,
    validation_file: str | None = None,
    seed: int = 7,
    base_model: str = BASE_MODEL,
    **hyperparameters,
) -> str:
    """Create a job and return its id."""
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return client.fine_tuning.jobs.create(
        model=base_model,
        training_file=file_id,
        seed=seed,
        suffix=suffix or openai.omit,
        validation_file=validation_file or openai.omit,
        method=method,
    ).id


def wait_for_model(client: openai.OpenAI, job_id: str, seconds: float = 300) -> str:
    """Wait for the job's end and return its model's name; fail with its error otherwise."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status == "succeeded":
            assert job.fine_tuned_model
            return job.fine_tuned_model
        assert job.status not in ("failed", "cancelled"), job.error
        time.sleep(0.25)
    raise AssertionError(f"job {job_id} is {job.status} after {seconds} s")
