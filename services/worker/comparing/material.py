"""What a comparison works with: the questions, what may be looked at, and who is asked.

Made anew by every attempt, of the files and the seed alone, so that each attempt asks the same.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import cast

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from services.worker.comparing import prompts
from services.worker.comparing.arms import Library, Plan, Question
from services.worker.comparing.embedding import embedder
from services.worker.comparing.retrieval import Retriever, RetrieverName, retriever_over
from services.worker.comparing.rows import RowFile, read_passages
from services.worker.comparing.settings import ComparerSettings
from shared.adapters.models import Adapter
from shared.comparisons.models import Comparison
from shared.db import transaction
from shared.evidence.arms import TUNED_ARMS, Arm
from shared.evidence.checkers import choose
from shared.evidence.leaks import leaks
from shared.evidence.report import Data
from shared.evidence.split import comparable_row, groups_of, set_apart
from shared.files.models import StoredFile
from shared.files.normalised import NormalisedRow
from shared.jobs.models import FineTuningJob
from shared.storage import LocalStore

MOST_LEAKS = 100


class CannotCompare(Exception):
    """Why the comparison fails; another attempt would fail, too."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class Indexer:
    """Builds indexes over texts, all with one embedding model."""

    def __init__(self, settings: ComparerSettings) -> None:
        self.model = embedder(settings)
        self.remarks: list[str] = []
        """What the feed must say of the indexes made so far."""
        self._max_texts = settings.embeddings_max_texts

    def __call__(self, name: RetrieverName, texts: Sequence[str]) -> Retriever:
        """Return an index; by BM25 alone where there are too many texts to embed."""
        found, remark = retriever_over(name, texts, self.model, self._max_texts)
        if remark and remark not in self.remarks:
            self.remarks.append(remark)
        return found


@dataclass(frozen=True)
class Material:
    """One comparison, read."""

    comparison: Comparison
    job: FineTuningJob | None
    tuned: Adapter | None
    """The job's model."""
    questions: Sequence[Question]
    """In the order of their file."""
    plan: Plan
    checker: str
    max_tokens: int
    data: Data
    indexer: Indexer

    def model_of(self, arm: Arm) -> str:
        """Return the name inside the inference service of the model that answers in an arm."""
        if arm not in TUNED_ARMS:
            return self.comparison.base_model
        if self.tuned is None:
            raise CannotCompare("model_not_found", "There is no tuned model to ask", "arms")
        return self.tuned.id


def gather(settings: ComparerSettings, engine: Engine, comparison: Comparison) -> Material:
    """Read what the comparison names; raise CannotCompare."""
    with transaction(engine) as session:
        job, tuned = _job_and_model(session, comparison)
        _refuse_deleted_files(session, comparison)
    uploads = LocalStore(settings.store_dir).upload
    training = RowFile(uploads(comparison.training_file_id) / "rows.jsonl")
    if comparison.held_out_file_id:
        held_out = RowFile(uploads(comparison.held_out_file_id) / "rows.jsonl")
        candidates, seen = list(range(len(held_out))), list(range(len(training)))
    else:
        held_out = training
        candidates = _set_apart(training, comparison, job)
        seen = sorted(set(range(len(training))).difference(candidates))
    asked_rows = [comparable_row(held_out[index]) for index in candidates]
    seen_rows = [comparable_row(training[index]) for index in seen]
    found = leaks(asked_rows, seen_rows)
    leaked = {leak.held_out_line for leak in found}
    visible = [index for index in seen if prompts.is_askable(training[index])]
    unseen = [index for index in candidates if held_out.lines[index] not in leaked]
    questions = _questions(held_out, unseen, comparison)
    if not questions:
        raise CannotCompare(
            "no_questions", "There is no held-out row with a question and an answer of its own"
        )
    indexer = Indexer(settings)
    passages = [
        passage
        for file_id in comparison.document_file_ids
        for passage in read_passages(uploads(file_id) / "passages.jsonl")
    ]
    return Material(
        comparison=comparison,
        job=job,
        tuned=tuned,
        questions=questions,
        plan=Plan(
            Library(training, visible, passages, indexer),
            cast("RetrieverName", comparison.retriever),
            comparison.seed,
        ),
        checker=comparison.checker or choose((q.text, q.expected) for q in questions).checker,
        max_tokens=comparison.max_tokens or prompts.answer_length(q.expected for q in questions),
        data=Data(
            training_rows=len(visible),
            held_out_rows=len(candidates),
            questions=len(questions),
            clusters=len({question.cluster for question in questions}),
            clustered_by="column" if held_out.grouped else "near_duplicates",
            passages=len(passages),
            leaks_found=len(found),
            leaks=tuple(found[:MOST_LEAKS]),
            training_sha256=_hash_of(training[index] for index in visible),
            held_out_sha256=_hash_of(held_out[index] for index in candidates),
        ),
        indexer=indexer,
    )


def _set_apart(training: RowFile, comparison: Comparison, job: FineTuningJob | None) -> list[int]:
    """Return the rows that no arm sees: those that the trainer says it kept apart, where it did."""
    if job is None:
        return set_apart(groups_of(training), comparison.questions, comparison.seed)
    return [number - 1 for number in (job.metrics or {}).get("test_row_numbers", ())]


def _job_and_model(
    session: Session, comparison: Comparison
) -> tuple[FineTuningJob | None, Adapter | None]:
    if comparison.job_id is None:
        return None, None
    tenant_id, job_id = comparison.tenant_id, comparison.job_id
    job = session.scalar(
        select(FineTuningJob).where(
            FineTuningJob.id == job_id, FineTuningJob.tenant_id == tenant_id
        )
    )
    adapter = session.scalar(
        select(Adapter).where(
            Adapter.job_id == job_id,
            Adapter.tenant_id == tenant_id,
            Adapter.kind == "final",
            Adapter.deleted_at.is_(None),
        )
    )
    if job is None or adapter is None:
        raise CannotCompare("model_not_found", "The job's model has been deleted", "job")
    return job, adapter


def _refuse_deleted_files(session: Session, comparison: Comparison) -> None:
    ids = [comparison.training_file_id, comparison.held_out_file_id, *comparison.document_file_ids]
    wanted = {each for each in ids if each}
    present = session.scalars(
        select(StoredFile.id).where(
            StoredFile.id.in_(wanted),
            StoredFile.tenant_id == comparison.tenant_id,
            StoredFile.deleted_at.is_(None),
        )
    )
    if missing := wanted.difference(present):
        raise CannotCompare("file_not_found", f"The file `{min(missing)}` has been deleted")


def _questions(
    held_out: RowFile, candidates: Sequence[int], comparison: Comparison
) -> list[Question]:
    """Draw the rows that are asked, by seed; related ones have one cluster."""
    askable = [index for index in candidates if prompts.is_askable(held_out[index])]
    count = min(comparison.questions, len(askable))
    asked = [held_out[i] for i in sorted(random.Random(comparison.seed).sample(askable, count))]
    clusters = groups_of(asked)
    return [
        Question(row.line, prompts.question_of(row), prompts.expected_of(row), cluster)
        for row, cluster in zip(asked, clusters, strict=True)
    ]


def _hash_of(rows: Iterable[NormalisedRow]) -> str:
    """Hash the rows' content in their order."""
    digests = sha256()
    for row in rows:
        digests.update(row.digest().encode())
    return digests.hexdigest()
