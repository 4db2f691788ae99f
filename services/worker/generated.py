"""What a job's model answers to held-out questions, before anybody else can ask it.

Token accuracy is measured with the right answer in front of the model; here it has to write the
answer itself. The adapter is served and checked by now, and asked as its tenant would ask it. The
figure is welcome and never needed: nothing that goes wrong here holds a job up for long, or ends
it.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.worker.comparing.asking import Answer, Ask, Inference, ModelGone, ask_all
from services.worker.comparing.orders import Orders
from services.worker.comparing.prompts import answer_length, messages, searched_text
from services.worker.spec import HeldOutQuestion, HeldOutQuestions
from shared.evidence.checkers import is_binary, score
from shared.evidence.statistics import mean_interval, share_interval
from shared.jobs.examples import HeldOutAnswer, HeldOutAnswers
from shared.telemetry import log_event

IN_FLIGHT = 4
"""Few: the tenant's own requests have the same slots."""
KEPT_EACH = 3
KEPT_CHARACTERS = 4000
"""Of each text."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generated:
    """How good the answers are, and some of them."""

    figures: dict[str, Any]
    answers: HeldOutAnswers


def generate(
    inference: Inference,
    model: str,
    held_out: HeldOutQuestions,
    *,
    seconds: float,
    seed: int,
    orders: Orders,
) -> Generated | None:
    """Ask ``model`` for ``seconds`` at most, and score what it answered; None if that is nothing.

    Raises EndedByOrder.
    """
    answers: list[Answer] = []
    questions = held_out.questions
    asking = ask_all(
        inference,
        model,
        [Ask(number, messages(each.messages)) for number, each in enumerate(questions)],
        max_tokens=answer_length(each.expected for each in questions),
        save=answers.extend,
        orders=orders,
    )
    try:
        asyncio.run(asyncio.wait_for(asking, seconds))
    except (TimeoutError, ModelGone) as reason:
        data = {"answered": len(answers), "reason": type(reason).__name__}
        log.warning("not all were answered", extra=log_event("held_out_unanswered", **data))
    return _scored(held_out, answers, seed)


def _scored(held_out: HeldOutQuestions, answers: Sequence[Answer], seed: int) -> Generated | None:
    answered = {answer.line: answer.text for answer in answers if not answer.failed}
    if not answered:
        return None
    checker, values = held_out.checker, {each.expected for each in held_out.questions}
    shown, clusters = [], []
    for number, text in sorted(answered.items()):
        asked = held_out.questions[number]
        shown.append(_shown(asked, text, score(checker, text, asked.expected, values)))
        clusters.append(asked.cluster)
    scores = [each.score for each in shown]
    interval = (
        share_interval(scores, clusters)
        if is_binary(checker)
        else mean_interval(scores, clusters, seed)
    )
    figures = {
        "checker": checker,
        "n": len(scores),
        "score": interval.value,
        "interval": [interval.low, interval.high],
        "on": held_out.on,
    }
    return Generated(figures, _kept(shown, seed))


def _shown(asked: HeldOutQuestion, answer: str, points: float) -> HeldOutAnswer:
    return HeldOutAnswer(
        line=asked.line,
        question=_cut(searched_text(asked.messages)),
        expected=_cut(asked.expected),
        answer=_cut(answer),
        score=points,
    )


def _cut(text: str) -> str:
    return text if len(text) <= KEPT_CHARACTERS else text[:KEPT_CHARACTERS] + "…"


def _kept(answers: Sequence[HeldOutAnswer], seed: int) -> HeldOutAnswers:
    """Choose the best, then of what is left the worst, then of the rest some by chance."""
    order = sorted(answers, key=lambda each: -each.score)
    best, rest = order[:KEPT_EACH], order[KEPT_EACH:]
    worst, rest = rest[-KEPT_EACH:][::-1], rest[:-KEPT_EACH]
    drawn = random.Random(seed).sample(rest, min(KEPT_EACH, len(rest)))
    return HeldOutAnswers(best=tuple(best), worst=tuple(worst), random=tuple(drawn))
