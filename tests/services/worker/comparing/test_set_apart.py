"""What is set apart is neither shown nor copied, and leaks and shuffled answers are seen."""

import json
import random

import pytest

from examples.company.build import HELD_OUT, TRAIN
from services.worker.comparing.run import run_next
from shared.evidence.arms import Arm
from shared.evidence.report import Forgetting
from tests.services.worker.comparing.model_server import Reply
from tests.services.worker.comparing.runs import LEXICAL, UNTUNED, report_of
from tests.services.worker.comparing.workshop import NUMBERS, numbered, row

pytestmark = pytest.mark.usefixtures("quick")


def test_no_prompt_shows_a_row_that_was_set_apart(workshop, model):
    comparison_id = workshop.add(arms=UNTUNED)
    run_next(workshop.place)
    answers = workshop.answers(comparison_id)
    apart = {answer.line for answer in answers}
    shown = {place + 1 for answer in answers for place in answer.retrieved}
    assert shown
    assert apart.isdisjoint(shown)
    questions = {f"Which code has part {line}?" for line in apart}
    for body in model.asked:
        *before, last = [message["content"] for message in body["messages"]]
        assert last in questions
        assert questions.isdisjoint(before)


def test_planted_rows_are_reported_as_leaks_and_not_asked(workshop, model):
    held_out = numbered(5, first=101)
    exact = row(NUMBERS + 1, *(turn["content"] for turn in held_out[2]["messages"]))
    twice = exact | {"line": NUMBERS + 2}
    training = workshop.add_file([*numbered(NUMBERS), exact, twice])
    comparison_id = workshop.add(training=training, held_out=held_out, arms=LEXICAL)
    run_next(workshop.place)
    report = report_of(workshop, comparison_id)
    assert [(leak.kind, leak.held_out_line, leak.training_line) for leak in report.data.leaks] == [
        ("exact", 3, NUMBERS + 1)
    ]
    assert (report.data.training_rows, report.data.questions) == (NUMBERS + 2, 4)
    assert {each.line for each in workshop.answers(comparison_id)} == {1, 2, 4, 5}


def company(path, count, draw=None):
    """Every so many-th row of the example company, the answers shuffled by ``draw``."""
    said = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
    questions, answers = ([turns[at]["content"] for turns in said] for at in (0, 1))
    if draw:
        draw.shuffle(answers)
    rows = list(zip(questions, answers, strict=True))[::count]
    return [row(line, *each) for line, each in enumerate(rows, 1)]


@pytest.mark.parametrize("draw", [None, random.Random(4)])
def test_answers_shuffled_among_the_rows_bring_every_arm_that_reads_them_to_chance(
    workshop, model, draw
):
    # A model that says what was shown last, and makes no mistake in reading.
    model.script = lambda body: Reply(body["messages"][-2]["content"])
    arms = [Arm.COPY_BM25, Arm.COPY_EMBEDDING, Arm.RETRIEVED_1, Arm.FEW_SHOT]
    comparison_id = workshop.add(
        training=workshop.add_file(company(TRAIN, 4, draw)),
        held_out=company(HELD_OUT, 5),
        arms=arms,
        checker="fact",
        retriever="hybrid",
    )
    run_next(workshop.place)
    found = {result.arm: result.score for result in report_of(workshop, comparison_id).arms}
    facts = 50
    informed = () if draw else (Arm.COPY_BM25, Arm.COPY_EMBEDDING, Arm.RETRIEVED_1)
    for arm in arms:
        if arm in informed:
            assert found[arm].low > 0.5
        else:
            assert found[arm].low <= 1 / facts


def test_rows_of_one_group_are_set_apart_together_and_are_one_cluster(workshop, model):
    rows = [each | {"group": f"fact {number // 3}"} for number, each in enumerate(numbered(30))]
    comparison_id = workshop.add(training=workshop.add_file(rows))
    run_next(workshop.place)
    data = report_of(workshop, comparison_id).data
    assert (data.clustered_by, data.questions, data.clusters) == ("column", 6, 2)
    asked = sorted(each.line for each in workshop.answers(comparison_id))
    assert all((line - 1) // 3 == (asked[0] - 1) // 3 for line in asked[:3])


def test_a_job_that_set_rows_apart_is_asked_these_and_its_report_says_what_it_forgot(
    workshop, model
):
    training = workshop.add_file(numbered(NUMBERS))
    forgetting = {"text_before": 3.0, "text_after": 3.3}
    forgetting |= {"instructions_before": 2.0, "instructions_after": 2.1}
    apart = [3, 8, 15, 16, 31]
    metrics = {"forgetting": forgetting, "test_row_numbers": apart}
    job_id, _ = workshop.add_job(training, hyperparameters={"held_out": 7}, metrics=metrics)
    comparison_id = workshop.add(training=training, job_id=job_id, arms=(Arm.ZERO_SHOT, Arm.TUNED))
    run_next(workshop.place)
    assert sorted({each.line for each in workshop.answers(comparison_id)}) == apart
    report = report_of(workshop, comparison_id)
    assert report.forgetting == Forgetting(**forgetting)
    assert report.data.training_rows == NUMBERS - len(apart)
