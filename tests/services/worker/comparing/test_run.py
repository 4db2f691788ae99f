"""Whole comparisons on a real database, with a model that follows a script."""

import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from services.worker.comparing import run
from services.worker.comparing.material import gather
from services.worker.comparing.run import run_next
from services.worker.endings import Outcome
from shared.comparisons.lease import expire, held_leases
from shared.comparisons.models import Comparison, ComparisonQuestion
from shared.comparisons.state import State
from shared.comparisons.transitions import move
from shared.db import transaction
from shared.evidence.arms import Arm
from shared.task_queue import COMPARE, make_celery, ring, with_short_timeouts
from tests.conftest import wait_until
from tests.services.worker.comparing.model_server import Reply, question_in
from tests.services.worker.comparing.runs import (
    LEXICAL,
    QUESTIONS,
    UNTUNED,
    report_of,
    say_the_code,
)
from tests.services.worker.comparing.workshop import BASE, NUMBERS, numbered
from tests.services.worker.workshop import kill_tree

pytestmark = pytest.mark.usefixtures("quick")


def test_all_untuned_arms_answer_the_questions_set_apart_and_the_report_is_kept(workshop, model):
    model.script = say_the_code
    comparison_id = workshop.add(arms=UNTUNED)
    assert run_next(workshop.place) is Outcome.ENDED
    report = report_of(workshop, comparison_id)
    assert report.data.questions == report.data.held_out_rows == QUESTIONS
    assert report.data.training_rows == NUMBERS - QUESTIONS
    assert {result.arm: result.right for result in report.arms} == {
        arm: 0 if arm in {Arm.COPY_BM25, Arm.COPY_EMBEDDING} else QUESTIONS for arm in UNTUNED
    }
    asked = workshop.get(comparison_id).progress
    assert (asked["asked"], asked["total"]) == (len(workshop.answers(comparison_id)),) * 2
    assert workshop.messages(comparison_id)[-1] == "The report is ready"
    assert {body["model"] for body in model.asked} == {BASE}
    assert {sent["x-tailor-tenant"] for sent in model.sent} == {workshop.tenant}


def test_questions_and_scores_are_kept(workshop, model):
    model.script = say_the_code
    comparison_id = workshop.add()
    run_next(workshop.place)
    with transaction(workshop.place.engine) as session:
        mine = ComparisonQuestion.comparison_id == comparison_id
        questions = session.scalars(select(ComparisonQuestion).where(mine)).all()
    answers = workshop.answers(comparison_id)
    assert {each.line for each in questions} == {each.line for each in answers}
    assert all("E" in each.expected and each.question for each in questions)
    report = report_of(workshop, comparison_id)
    assert sum(each.score for each in answers) == report.arms[0].right


def test_the_tuned_model_is_asked_by_the_adapters_inner_name(workshop, model):
    training = workshop.add_file(numbered(NUMBERS))
    job_id, adapter_id = workshop.add_job(training)
    arms = (Arm.ZERO_SHOT, Arm.TUNED, Arm.TUNED_RETRIEVED_3)
    comparison_id = workshop.add(training=training, job_id=job_id, arms=arms)
    run_next(workshop.place)
    report = report_of(workshop, comparison_id)
    assert report.job == job_id
    assert report.tuned_model == f"ft:{BASE}:{workshop.tenant}::{adapter_id[-8:]}"
    assert [body["model"] for body in model.asked].count(adapter_id) == 2 * QUESTIONS


def test_after_a_kill_only_what_is_missing_is_asked_and_the_report_is_the_same(
    workshop, model, broker
):
    model.script = say_the_code
    whole = workshop.add(arms=LEXICAL)
    run_next(workshop.place)
    expected = without_times(report_of(workshop, whole))
    training = workshop.get(whole).training_file_id
    comparison_id = workshop.add(arms=LEXICAL, training=training)
    begun, killed = len(model.asked), threading.Event()

    def script(body):
        if len(model.asked) > begun + 13:
            killed.wait(60)
        return say_the_code(body)

    model.script = script
    process = workshop.start(broker.url)
    assert ring(with_short_timeouts(make_celery(broker.url)), COMPARE)
    least = QUESTIONS + 13 - workshop.settings.comparer_in_flight
    wait_until(lambda: len(workshop.answers(comparison_id)) >= least, "answers are kept")
    kill_tree(process.pid)
    process.wait(10)
    killed.set()
    kept = len(workshop.answers(comparison_id))
    lose(workshop, comparison_id)
    model.asked.clear()
    assert run_next(workshop.place) is Outcome.ENDED
    assert len(model.asked) == len(LEXICAL) * QUESTIONS - kept
    assert without_times(report_of(workshop, comparison_id)) == expected


def test_a_cancel_ends_the_asking_within_a_moment(workshop, model):
    comparison_id, once = workshop.add(), threading.Lock()

    def cancel(body):
        if len(model.asked) >= 3 and once.acquire(blocking=False):
            with transaction(workshop.engine) as session:
                move(session, comparison_id, State.CANCELLING, "Cancel requested")
        if len(model.asked) >= 3:
            threading.Event().wait(5)
        return say_the_code(body)

    model.script = cancel
    began = time.monotonic()
    assert run_next(workshop.place) is Outcome.ENDED
    assert time.monotonic() - began < 4
    assert workshop.get(comparison_id).state == State.CANCELLED


def test_a_drained_comparison_goes_back_to_the_queue_with_its_answers(workshop, model):
    comparison_id = workshop.add()

    def drain(body):
        if len(model.asked) >= 5:
            workshop.place.drain.request()
            threading.Event().wait(5)
        return say_the_code(body)

    model.script = drain
    assert run_next(workshop.place) is Outcome.GOES_ON
    comparison = workshop.get(comparison_id)
    assert (comparison.state, comparison.fruitless_attempts) == (State.QUEUED, 0)
    assert len(workshop.answers(comparison_id)) >= 1


def test_a_comparer_that_lost_its_lease_writes_nothing_more(workshop, model):
    comparison_id, once = workshop.add(), threading.Lock()

    def lose_it(body):
        if len(model.asked) >= 4 and once.acquire(blocking=False):
            lose(workshop, comparison_id)
        return say_the_code(body)

    model.script = lose_it
    assert run_next(workshop.place) is Outcome.LOST
    assert workshop.get(comparison_id).state == State.QUEUED
    assert len(workshop.answers(comparison_id)) <= 4


def test_a_comparer_that_slept_past_its_lease_keeps_no_question(workshop, monkeypatch):
    # No heartbeat tells it: as if the whole process had stood still while it read.
    settings = workshop.settings.model_copy(update={"heartbeat_seconds": 60.0})
    place = replace(workshop.place, settings=settings)
    comparison_id = workshop.add()

    def sleep_while_reading(*given):
        lose(workshop, comparison_id)
        return gather(*given)

    monkeypatch.setattr(run, "gather", sleep_while_reading)
    assert run_next(place) is Outcome.LOST
    with transaction(workshop.engine) as session:
        assert session.scalars(select(ComparisonQuestion)).all() == []


def test_an_answer_with_a_nul_is_kept_as_one_that_is_wrong(workshop, model):
    model.script = lambda _: Reply("E1\0")
    comparison_id = workshop.add()
    run_next(workshop.place)
    assert [arm.right for arm in report_of(workshop, comparison_id).arms] == [0]
    assert {answer.answer for answer in workshop.answers(comparison_id)} == {"E1\ufffd"}


def test_inference_may_be_away_for_a_while_and_no_question_is_lost(workshop, model):
    comparison_id = workshop.add()
    model.script = lambda body: (
        Reply(status=503) if 3 < len(model.asked) < 40 else say_the_code(body)
    )
    run_next(workshop.place)
    assert [arm.right for arm in report_of(workshop, comparison_id).arms] == [QUESTIONS]


def test_an_embeddings_endpoint_may_be_away_for_a_day_and_no_attempt_is_blamed(workshop):
    away = {"embeddings_url": "http://127.0.0.1:1/v1", "embeddings_model": "e"}
    place = replace(workshop.place, settings=workshop.settings.model_copy(update=away))
    comparison_id = workshop.add(arms=[Arm.COPY_EMBEDDING])
    run_next(place)
    comparison = workshop.get(comparison_id)
    assert (comparison.state, comparison.fruitless_attempts) == (State.QUEUED, 0)
    assert comparison.not_before is not None
    assert "embeddings" in workshop.messages(comparison_id)[-1]
    with transaction(workshop.engine) as session:
        row = session.get_one(Comparison, comparison_id)
        assert row.started_at is not None
        row.started_at = row.started_at - timedelta(hours=25)
        row.not_before = None
    run_next(place)
    comparison = workshop.get(comparison_id)
    assert (comparison.state, comparison.error["code"]) == (State.FAILED, "embeddings_unavailable")


def test_a_prompt_that_is_too_long_counts_as_a_failed_answer(workshop, model):
    too_long = {"param": "input_tokens", "code": 400}
    comparison_id = workshop.add(arms=(Arm.FEW_SHOT, Arm.ZERO_SHOT))
    model.script = lambda body: (
        Reply(status=400, error=too_long) if len(body["messages"]) > 1 else say_the_code(body)
    )
    run_next(workshop.place)
    zero_shot, few_shot = report_of(workshop, comparison_id).arms
    assert (zero_shot.right, zero_shot.failed) == (QUESTIONS, 0)
    assert (few_shot.right, few_shot.failed) == (0, QUESTIONS)


def test_passages_of_documents_stand_before_the_question(workshop, model):
    passages = [{"document": "手引.pdf", "place": f"page {n}", "text": f"Part {n}"} for n in (1, 2)]
    document = workshop.add_file(passages, name="passages.jsonl")
    comparison_id = workshop.add(arms=(Arm.DOCUMENTS,), document_file_ids=[document])
    run_next(workshop.place)
    assert report_of(workshop, comparison_id).data.passages == 2
    assert all("Part 1" in question_in(body) for body in model.asked)


def test_the_model_of_another_tenant_is_never_asked(workshop, model):
    stranger = workshop.add_tenant()
    training = workshop.add_file(numbered(NUMBERS))
    job_id, _ = workshop.add_job(training, tenant=stranger)
    comparison_id = workshop.add(training=training, job_id=job_id, arms=(Arm.TUNED,))
    assert run_next(workshop.place) is Outcome.ENDED
    comparison = workshop.get(comparison_id)
    assert (comparison.state, comparison.error["code"]) == (State.FAILED, "model_not_found")
    assert model.asked == []


def test_a_model_that_is_deleted_meanwhile_fails_the_comparison(workshop, model):
    training = workshop.add_file(numbered(NUMBERS))
    job_id, _ = workshop.add_job(training)
    model.script = lambda _: Reply(status=404, error={"code": "model_not_found"})
    comparison_id = workshop.add(training=training, job_id=job_id, arms=(Arm.TUNED,))
    run_next(workshop.place)
    assert workshop.get(comparison_id).error["code"] == "model_not_found"


def lose(workshop, comparison_id):
    """What the scheduler does with a comparison whose comparer is gone."""
    with transaction(workshop.engine) as session:
        # A heartbeat between reading and expiring would move the lease: it waits for the row.
        session.get_one(Comparison, comparison_id, with_for_update=True)
        found = held_leases(session)
        (lease,) = [each for each in found if each.job_id == comparison_id]
        assert expire(session, lease) == State.QUEUED


def without_times(report):
    told = report.model_dump(exclude={"comparison"})
    for arm in told["arms"]:
        del arm["first_token_seconds"], arm["answer_seconds"]
    return told
