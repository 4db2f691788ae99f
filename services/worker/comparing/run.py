"""A comparison on one page: claim, hold the lease, ask arm after arm, report.

Answers are kept as they come; whoever claims the comparison next asks only what is missing, and
makes the report of the kept answers alone. So whatever dies costs about a second's answers.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from services.worker.comparing.arms import CHEAP_FIRST, Question, Shown
from services.worker.comparing.asking import Answer, Inference, ModelGone, ask_all
from services.worker.comparing.kept import (
    Kept,
    count_kept,
    keep,
    keep_questions,
    keep_scores,
    kept_answers,
)
from services.worker.comparing.material import CannotCompare, Material, gather
from services.worker.comparing.orders import EndedByOrder, Orders
from services.worker.comparing.prompts import expected_of
from services.worker.comparing.reporting import Scores, make_report, scored
from services.worker.comparing.settings import ComparerSettings
from services.worker.drain import Drain
from services.worker.endings import Outcome
from services.worker.lease import FeedLine, Held, Lease, Order, Progress
from shared.comparisons.claim import claim_next
from shared.comparisons.lease import renew, requeue
from shared.comparisons.models import Comparison
from shared.comparisons.state import State
from shared.comparisons.transitions import move, record
from shared.db import transaction
from shared.errors import LeaseLost, UpstreamUnavailable
from shared.evidence.arms import COPIES, Arm
from shared.evidence.report import Report
from shared.replicas.directory import Directory
from shared.telemetry import log_context, log_event

PUT_OFF_SECONDS = 60.0
MOST_PUT_OFF = timedelta(days=1)
"""Since its first claim a comparison waits so long for an embeddings endpoint that is away."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """What a comparer works with; ``engine`` was made in its process (a fork must not share it)."""

    settings: ComparerSettings
    engine: Engine
    replicas: Directory
    drain: Drain

    def inference(self, comparison: Comparison) -> Inference:
        """The inference processes of a comparison's base, as its tenant's gateway asks them."""
        settings, tenant_id = self.settings, comparison.tenant_id
        return Inference(
            turn=partial(self.replicas.turn, comparison.base_model),
            secret=settings.inference_secret.get_secret_value(),
            tenant_id=tenant_id,
            salt_key=settings.cache_salt_key.get_secret_value(),
            in_flight=settings.comparer_in_flight,
        )


def run_next(place: Place) -> Outcome:
    """Claim the best comparison and work on it until it has ended or belongs to others."""
    if place.drain.requested():
        return Outcome.NOTHING
    with transaction(place.engine) as session:
        comparison = claim_next(
            session,
            owner=f"{socket.gethostname()}:{os.getpid()}",
            bases=place.replicas.bases(),
        )
    if comparison is None:
        return Outcome.NOTHING
    attempt = str(comparison.attempt)
    with log_context(tenant_id=comparison.tenant_id, job_id=comparison.id, attempt=attempt):
        log.info("claimed", extra=log_event("comparison_claimed"))
        outcome = run(place, comparison)
        log.info("released", extra=log_event("comparison_released", outcome=outcome))
    return outcome


def run(place: Place, comparison: Comparison) -> Outcome:
    """Work on a claimed comparison; leave the row as the protocol wants it, whatever happens."""
    orders = Orders()
    lease = Lease(
        engine=place.engine,
        held=held_comparison(comparison),
        heartbeat_seconds=place.settings.heartbeat_seconds,
        drain=place.drain,
        give=orders.give,
        kill=lambda: None,
    )
    with lease:
        try:
            return attempt(place, comparison, lease, orders)
        except LeaseLost:
            return end_without_lease(comparison, lease)


def attempt(place: Place, comparison: Comparison, lease: Lease, orders: Orders) -> Outcome:
    """Make the comparison, or end it by order or failure; raises LeaseLost."""
    try:
        work(place, comparison, lease, orders)
    except EndedByOrder as ended:
        return end_by_order(comparison, lease, ended.order)
    except CannotCompare as failure:
        lease.finish(partial(fail, comparison=comparison, failure=failure))
    except UpstreamUnavailable as away:
        # The embeddings endpoint: others may not need it.
        lease.finish(partial(put_off, comparison=comparison, reason=str(away)))
    return Outcome.ENDED


def held_comparison(comparison: Comparison) -> Held:
    """Say how the lease of this attempt is renewed, and where its feed is."""

    def renew_comparison(session: Session, progress: Progress | None) -> str | None:
        return renew(session, comparison.id, comparison.attempt, progress)

    def record_line(session: Session, line: FeedLine) -> None:
        record(session, comparison, line.message, type=line.type, data=line.data)

    return Held(f"comparison {comparison.id}", renew_comparison, record_line)


def work(place: Place, comparison: Comparison, lease: Lease, orders: Orders) -> None:
    """Ask what is missing, and report; raises EndedByOrder, LeaseLost, CannotCompare."""
    material = orders.listening(lambda: gather(place.settings, place.engine, comparison))
    arms = [arm for arm in CHEAP_FIRST if arm in set(comparison.arms)]
    answers = lease.write(partial(begin, comparison=comparison, questions=material.questions))
    for arm in arms:
        shown = orders.listening(partial(material.plan.shown, arm, material.questions))
        missing = [each for each in shown if each.question.line not in answers[arm]]
        if missing:
            writing = Writing(comparison, lease, arm, missing, total=len(arms) * len(shown))
            answer(place, material, arm, missing, save=writing.save, orders=orders)
            lease.event(FeedLine(f"All questions of `{arm}` are answered"))
    for remark in material.indexer.remarks:
        lease.event(FeedLine(remark))
    answers = lease.write(partial(all_kept, comparison=comparison))
    of_arm = {arm: answers[arm] for arm in arms}
    scores = orders.listening(lambda: scored(material, of_arm))
    report = orders.listening(lambda: make_report(material, of_arm, scores))
    lease.finish(partial(succeed, comparison=comparison, report=report, scores=scores))


def begin(
    session: Session, comparison: Comparison, questions: Sequence[Question]
) -> dict[Arm, dict[int, Kept]]:
    """Keep the questions; return the answers of earlier attempts. Raises LeaseLost."""
    keep_questions(session, comparison, questions)
    return all_kept(session, comparison)


def all_kept(session: Session, comparison: Comparison) -> dict[Arm, dict[int, Kept]]:
    """Return the kept answers; raises LeaseLost, and then nothing of the transaction is kept."""
    hold(session, comparison)
    return kept_answers(session, comparison.id)


def hold(session: Session, comparison: Comparison, progress: Progress | None = None) -> None:
    """Renew the lease in the transaction of a write, which it fences; raises LeaseLost."""
    if renew(session, comparison.id, comparison.attempt, progress) is None:
        raise LeaseLost(f"comparison {comparison.id} is no longer ours")


def succeed(session: Session, comparison: Comparison, report: Report, scores: Scores) -> Comparison:
    """Keep the report and every answer's score; raises LeaseLost."""
    keep_scores(session, comparison, scores)
    return move(
        session,
        comparison.id,
        State.SUCCEEDED,
        "The report is ready",
        attempt=comparison.attempt,
        report=report.model_dump(mode="json"),
    )


def answer(
    place: Place,
    material: Material,
    arm: Arm,
    missing: Sequence[Shown],
    *,
    save: Callable[[list[Answer]], None],
    orders: Orders,
) -> None:
    """Answer the questions of one arm: by a model, or by copying."""
    if arm in COPIES:
        save([copied(material, each) for each in missing])
        orders.check()
        return
    model = material.model_of(arm)
    asks = (material.plan.ask(arm, each) for each in missing)
    inference = place.inference(material.comparison)
    asking = ask_all(
        inference, model, asks, max_tokens=material.max_tokens, save=save, orders=orders
    )
    try:
        asyncio.run(asking)
    except ModelGone as gone:
        message = f"The model of the arm `{arm}` cannot be asked: it is gone, or is not served"
        raise CannotCompare(str(gone), message) from None


def copied(material: Material, shown: Shown) -> Answer:
    """Return the answer of the nearest training row."""
    rows = [material.plan.library.training[place] for place in shown.places]
    return Answer(shown.question.line, expected_of(rows[-1]) if rows else "")


class Writing:
    """Writes the answers of one arm as they come, with the progress they are."""

    def __init__(
        self, comparison: Comparison, lease: Lease, arm: Arm, shown: Sequence[Shown], total: int
    ) -> None:
        self._comparison = comparison
        self._lease = lease
        self._arm = arm
        self._places = {each.question.line: each.places for each in shown}
        self._total = total

    def save(self, answers: list[Answer]) -> None:
        """Keep answers in one transaction with the renewed lease, which fences it."""
        kept = [Kept(answer, self._places[answer.line]) for answer in answers]
        self._lease.write(partial(self._write, kept=kept))

    def _write(self, session: Session, kept: Sequence[Kept]) -> None:
        comparison = self._comparison
        keep(session, comparison, self._arm, kept)
        asked = count_kept(session, comparison.id)
        progress = {"asked": asked, "total": self._total, "arm": self._arm}
        hold(session, comparison, progress)


def end_by_order(comparison: Comparison, lease: Lease, order: Order) -> Outcome:
    """Cancel, or give back what is drained."""
    if order is Order.LOST:
        return Outcome.LOST
    lease.finish(partial(give_away, comparison=comparison, order=order))
    return Outcome.GOES_ON if order is Order.DRAIN else Outcome.ENDED


def give_away(session: Session, comparison: Comparison, order: Order) -> Comparison:
    """Move the comparison where the order wants it; raises LeaseLost."""
    if order is Order.CANCEL:
        return move(
            session,
            comparison.id,
            State.CANCELLED,
            "The comparison was cancelled",
            attempt=comparison.attempt,
            # Never from the queue: it may be there again after a lost lease.
            sources=frozenset({State.CANCELLING}),
        )
    message = "The comparer is shutting down; the comparison goes on elsewhere"
    return requeue(session, comparison, message, counted=False)


def end_without_lease(comparison: Comparison, lease: Lease) -> Outcome:
    """A guarded update matched no row: another owns it, or its user cancelled it first."""
    try:
        lease.finish(partial(give_away, comparison=comparison, order=Order.CANCEL))
    except LeaseLost:
        return Outcome.LOST
    return Outcome.ENDED


def put_off(session: Session, comparison: Comparison, reason: str) -> Comparison:
    """Give back what waits for another service, which no attempt is to blame for; not for ever."""
    waited = session.scalars(
        select(func.clock_timestamp() - Comparison.started_at).where(Comparison.id == comparison.id)
    ).one()
    if waited > MOST_PUT_OFF:
        return fail(session, comparison, CannotCompare("embeddings_unavailable", reason))
    return requeue(session, comparison, reason, delay_seconds=PUT_OFF_SECONDS, counted=False)


def fail(session: Session, comparison: Comparison, failure: CannotCompare) -> Comparison:
    """End a comparison that cannot be made."""
    return move(
        session,
        comparison.id,
        State.FAILED,
        failure.message,
        attempt=comparison.attempt,
        level="error",
        error={"code": failure.code, "message": failure.message, "param": failure.param},
    )
