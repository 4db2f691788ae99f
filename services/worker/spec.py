"""What the supervisor and the trainer process say to each other; importing it needs no torch.

stdin of the trainer: one JSON object a line, a ``TrainSpec``, ``{"command": "stop"}`` (checkpoint,
then end the job) or ``{"command": "abort"}`` (end the job without a checkpoint).
stdout: one JSON object a line, the ``…Message`` classes below, told apart by ``kind``.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from shared.evidence.report import Forgetting
from shared.files.normalised import Message
from shared.jobs.examples import BatchRow
from shared.jobs.hyperparameters import Hyperparameters

KEPT_EPOCH_ENDS = 3
"""Newest epoch ends whose checkpoints the trainer keeps and publishing makes callable."""


RECOMPUTING_DIVISOR = 4
"""From here on a layer keeps nothing but what enters it; there is no smaller micro-batch."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainSpec(_Message):
    """All that one attempt needs; paths and numbers, no credentials."""

    kind: Literal["train"] = "train"
    job_id: str
    attempt: int
    base_model: str
    """Catalog name."""
    base_dir: Path
    base_sha256: str
    train_rows: Path
    """Normalised rows.jsonl (see shared/files/normalised.py)."""
    validation_rows: Path | None
    """None: a split is carved out of the training rows by their hash."""
    attempt_dir: Path
    """The only folder this attempt writes to: checkpoints ``step-%09d/``, then ``adapter/``."""
    resume_from: tuple[Path, ...]
    """Folders of earlier attempts, newest first; the highest verified checkpoint is resumed."""
    hyperparameters: Hyperparameters
    seed: int
    micro_batch_divisor: int = 1
    """By how much what is computed at once was made smaller, for want of memory."""
    checkpoint_seconds: float
    threads: int
    scratch_dir: Path | None = None
    """Where large temporary files go; None: into ``attempt_dir``."""

    @property
    def recompute(self) -> bool:
        """Whether the backward pass computes again what is inside a layer."""
        return self.micro_batch_divisor >= RECOMPUTING_DIVISOR


class ReadyMessage(_Message):
    """The process has imported torch and waits for a spec."""

    kind: Literal["ready"] = "ready"


class StartedMessage(_Message):
    """Data read, model loaded; next are the frozen layers' states (``prefix``), then training."""

    kind: Literal["started"] = "started"
    step: int
    """Optimiser steps already done by earlier attempts (0 for a fresh start)."""
    total_steps: int
    steps_per_epoch: int
    train_rows: int
    validation_rows: int
    test_rows: int = 0
    fresh_because: str | None = None
    """Why training starts anew although there were checkpoints; for the user."""
    differs: str | None = None
    """What is not as it was when the resumed checkpoint was made; for the user."""


class FirstBatchMessage(_Message):
    """The first batch, as the model sees it; every attempt of a job says the same."""

    kind: Literal["first_batch"] = "first_batch"
    rows: tuple[BatchRow, ...]


Phase = Literal["reading", "prefix", "training", "evaluating"]


class PreparingMessage(_Message):
    """Work that takes long goes on: at the latest every few seconds something is said."""

    kind: Literal["preparing"] = "preparing"
    phase: Phase
    """``prefix``: the states that the frozen layers make of the rows are computed."""
    done: int
    total: int
    """Rows, or micro-batches of a step."""
    step: int = 0
    """Last optimiser step done."""


class StepMetrics(_Message):
    """Figures after one optimiser step; validation ones only where it was evaluated."""

    step: int
    epoch: int
    train_loss: float
    train_accuracy: float
    """Mean token accuracy on the step's answer tokens, 0 to 1."""
    valid_loss: float | None = None
    valid_accuracy: float | None = None
    forgetting_increase: float | None = None
    """By how much the loss on rows that are no company's has risen, as a share of what it was; only
    where a budget limits it."""


class ProgressMessage(_Message):
    """One optimiser step is done."""

    kind: Literal["progress"] = "progress"
    metrics: StepMetrics
    total_steps: int
    tokens_per_second: float
    seconds_left: float


class EvaluationMessage(_Message):
    """The validation rows were evaluated (``step`` 0: the base model before training)."""

    kind: Literal["evaluation"] = "evaluation"
    step: int
    epoch: int
    loss: float
    accuracy: float
    best: bool


class CheckpointMessage(_Message):
    """A checkpoint folder is durable."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    path: Path


class CheckpointAdapter(_Message):
    """An end-of-epoch checkpoint exported as an adapter folder inside the attempt's."""

    step: int
    path: Path
    metrics: StepMetrics


class ReportedFigures(_Message):
    """Mean over the answer tokens of rows that neither trained nor chose the checkpoint."""

    test_rows: int
    base_test_loss: float
    base_test_mean_token_accuracy: float
    test_loss: float
    test_mean_token_accuracy: float


class HeldOutQuestion(_Message):
    """One row that nothing was trained on."""

    line: int
    messages: tuple[Message, ...]
    """All before the answer."""
    expected: str
    cluster: int
    """Related rows have the same."""


class HeldOutQuestions(_Message):
    """What the served adapter is asked, and how its answers are scored."""

    on: Literal["test", "validation"]
    checker: str
    questions: tuple[HeldOutQuestion, ...]


class DoneMessage(_Message):
    """Training ended; ``adapter_dir`` holds adapter_model.safetensors and adapter_config.json."""

    kind: Literal["done"] = "done"
    step: int
    """Optimiser steps done in all."""
    steps_this_attempt: int
    total_steps: int
    best_step: int
    stopped_early: bool
    trained_tokens: int
    adapter_dir: Path
    """The best checkpoint's adapter, without a manifest: the supervisor publishes it."""
    data_sha256: str
    check_file: Path
    """JSON list of ServedCheck: what the served adapter must reproduce."""
    questions_file: Path | None = None
    """HeldOutQuestions as JSON; None where no held-out row can be asked."""
    checkpoints: tuple[CheckpointAdapter, ...] = ()
    history: tuple[StepMetrics, ...]
    """Every step of the whole job, earlier attempts included."""
    base_loss: float
    base_accuracy: float
    final_loss: float
    final_accuracy: float
    """On the validation rows, of the best checkpoint."""
    test_row_numbers: tuple[int, ...] = ()
    """Which rows of the training file are test rows, from 1: a comparison asks these."""
    reported: ReportedFigures | None = None
    """Of the best checkpoint; None where too few rows are there to be set apart for it."""
    forgetting: Forgetting | None = None
    """Of the best checkpoint; None in what an earlier version has finished."""
    over_budget: bool = False
    """No checkpoint was within the forgetting budget; this one is the nearest to it."""


class StoppedMessage(_Message):
    """The job was stopped or aborted on request; ``step`` is the last checkpointed one."""

    kind: Literal["stopped"] = "stopped"
    step: int
    ends: bool = False
    """Whether the trainer exits after sending this."""


class ErrorMessage(_Message):
    """The job failed inside the trainer, which exits after sending this."""

    kind: Literal["error"] = "error"
    code: Literal[
        "bad_data",
        "bad_configuration",
        "non_finite_loss",
        "out_of_memory",
        "disk_full",
        "crash",
    ]
    message: str
    """Safe for the user: names a line or a field, never a row's text."""
    param: str | None = None


class ServedCheck(_Message):
    """One validation row as token ids, with the trainer's own log-probabilities."""

    token_ids: tuple[int, ...]
    answer_start: int
    """Index of the first answer token."""
    adapter_logprobs: tuple[float, ...]
    """Of token_ids[answer_start:], under the adapter."""
    base_logprobs: tuple[float, ...]
    """The same under the base model alone."""


TrainerMessage = Annotated[
    ReadyMessage
    | StartedMessage
    | FirstBatchMessage
    | PreparingMessage
    | ProgressMessage
    | EvaluationMessage
    | CheckpointMessage
    | DoneMessage
    | StoppedMessage
    | ErrorMessage,
    Field(discriminator="kind"),
]
trainer_message: TypeAdapter[TrainerMessage] = TypeAdapter(TrainerMessage)
