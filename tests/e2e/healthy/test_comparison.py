"""A comparison on the real stack: documents, report, page and rows, and what none may see."""

import json
import random

import pytest
from scipy.stats import binomtest
from sqlalchemy import select

from cli import compare
from examples.company.build import HELD_OUT, TRAIN
from shared.comparisons.models import ComparisonAnswer
from shared.db import make_engine, transaction
from shared.evidence.arms import Arm
from shared.evidence.report import Forgetting
from shared.evidence.split import set_apart
from tests.e2e.comparisons import begin, shelf_rows, wait_for_end
from tests.e2e.jobs import BASE_MODEL, create_job, upload, wait_for_model

pytestmark = pytest.mark.stack

HANDBOOK = "# Warehouse\n\nThe code of shelf 3 is 1021.\n\n# Office\n\nThe key is with Ms. Sato.\n"


@pytest.fixture(scope="module")
def tenant(stack):
    return stack.tenant("comparing")


@pytest.fixture(scope="module")
def comparison_id(tenant):
    handbook = tenant.client.files.create(file=("倉庫.md", HANDBOOK.encode()), purpose="user_data")
    comparison_id = begin(
        tenant,
        shelf_rows(50),
        documents=[handbook.id],
        arms=["copy_bm25", "copy_embedding", "zero_shot", "retrieved_1", "documents"],
    )
    wait_for_end(tenant, comparison_id)
    return comparison_id


def test_every_arm_is_asked_the_same_rows_and_the_report_says_what_of(tenant, comparison_id):
    report = compare.report_of(tenant.client, comparison_id)
    data = report.data
    assert (data.training_rows, data.questions, data.passages) == (40, 10, 2)
    assert (report.checker, report.verdict.kind) == ("fact", "before_training")
    by_arm = {result.arm: result for result in report.arms}
    assert list(by_arm) == [
        "copy_bm25",
        "copy_embedding",
        "zero_shot",
        "retrieved_1",
        "documents",
    ]
    assert {result.questions for result in report.arms} == {10}
    assert by_arm["copy_bm25"].prompt_tokens == 0
    assert by_arm["zero_shot"].prompt_tokens < by_arm["retrieved_1"].prompt_tokens
    assert (by_arm["retrieved_1"].first_token_seconds or 0) > 0


def test_each_question_has_every_arms_answer_and_none_was_there_to_copy(tenant, comparison_id):
    rows = list(compare.rows_of(tenant.client, comparison_id))
    assert len(rows) == 10
    for row in rows:
        answers = {answer["arm"]: answer for answer in row["answers"]}
        assert len(answers) == 5
        # Every row has a code of its own: a copied answer is another row's.
        assert answers["copy_bm25"]["answer"] != row["expected"]
        assert answers["copy_bm25"]["score"] == 0


def test_the_page_is_served_in_both_languages(stack, tenant, comparison_id, tmp_path):
    for language in ("en", "ja"):
        path = tmp_path / f"{language}.html"
        stack.run(
            "compare",
            "export",
            comparison_id,
            "--html",
            str(path),
            "--language",
            language,
            TAILOR_API_KEY=tenant.api_key,
            TAILOR_BASE_URL=stack.base_url,
        )
        assert f'<html lang="{language}"' in path.read_text()


def rows_shown(stack, comparison_id: str) -> set[int]:
    """Numbers of the training rows that were copied from, or put into a prompt."""
    engine = make_engine(stack.system_database_url)
    with transaction(engine) as session:
        mine = ComparisonAnswer.comparison_id == comparison_id
        found = session.scalars(select(ComparisonAnswer.retrieved).where(mine)).all()
    engine.dispose()
    return {place + 1 for places in found for place in places or ()}


def test_a_job_sets_rows_apart_and_ends_with_a_comparison_on_them(stack):
    tenant = stack.tenant("apart")
    job = tenant.client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=upload(tenant.client, shelf_rows(50)),
        seed=5,
        hyperparameters={"n_epochs": 1},
        extra_body={
            "x_compare": {"arms": ["copy_bm25", "retrieved_3", "tuned"]},
            "x_forgetting_budget": 0.5,
        },
    )
    comparison_id = compare.of_job(tenant.client, job.id)
    wait_for_end(tenant, comparison_id)
    metrics = tenant.client.fine_tuning.jobs.retrieve(job.id).model_extra["metrics"]
    assert (metrics["reported_on"], metrics["test_rows"]) == ("test", 10)
    report = compare.report_of(tenant.client, comparison_id)
    assert (report.data.training_rows, report.data.questions) == (40, 10)
    assert report.forgetting == Forgetting.model_validate(metrics["forgetting"])
    asked = {row["line"] for row in compare.rows_of(tenant.client, comparison_id)}
    assert asked == {index + 1 for index in set_apart(range(50), 200, seed=5)}
    assert asked == set(metrics["test_row_numbers"])
    shown = rows_shown(stack, comparison_id)
    assert shown
    assert not shown & asked
    generated = metrics["generated"]
    assert (generated["checker"], generated["n"], generated["on"]) == ("fact", 10, "test")
    examples = tenant.client.get(f"/fine_tuning/jobs/{job.id}/examples", cast_to=object)
    answers = [each for chosen in examples["answers"].values() for each in chosen]
    assert {each["line"] for each in answers} < asked
    (row, *_) = examples["first_batch"]
    assert row["line"] not in asked
    learnt = [span["text"] for span in row["spans"] if span["learnt"]]
    assert learnt == [f"{7 * (row['line'] - 1) + 1000}<|im_end|>"]


FACTS = 50
"""Of the example company, with eight training rows each."""


def shuffled(rows: bytes) -> bytes:
    """Give every question the answer of a row drawn at random."""
    found = [json.loads(line)["messages"] for line in rows.splitlines()]
    answers = [messages[-1] for messages in found]
    random.Random(5).shuffle(answers)
    mixed = [[*messages[:-1], answer] for messages, answer in zip(found, answers, strict=True)]
    return "\n".join(json.dumps({"messages": each}) for each in mixed).encode()


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_answers_shuffled_among_the_rows_bring_every_arm_to_chance(stack):
    tenant = stack.tenant("shuffled")
    job_id = create_job(tenant.client, upload(tenant.client, shuffled(TRAIN.read_bytes())))
    wait_for_model(tenant.client, job_id, 900)
    comparison_id = compare.create(
        tenant.client,
        {
            "job": job_id,
            "held_out_file": upload(tenant.client, HELD_OUT.read_bytes()),
            "checker": "fact",
            "arms": [str(arm) for arm in Arm if arm is not Arm.DOCUMENTS],
            "seed": 3,
        },
    )
    wait_for_end(tenant, comparison_id, 900)
    report = compare.report_of(tenant.client, comparison_id)
    print([(result.arm, result.right, result.questions) for result in report.arms])
    for result in report.arms:
        # A fact is asked four times, and whoever hits upon it hits four times.
        assert result.right is not None
        facts = round(result.right / result.questions * FACTS)
        by_chance = binomtest(facts, FACTS, 1 / FACTS, alternative="greater").pvalue
        assert by_chance > 0.05 / len(report.arms)


def test_a_stranger_sees_nothing_of_it(stack, comparison_id):
    stranger = stack.tenant("stranger")
    with pytest.raises(Exception, match="No such comparison"):
        compare.report_of(stranger.client, comparison_id)
