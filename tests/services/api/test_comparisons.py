"""Comparisons over HTTP: what may be compared, what is shown, and what is gone when deleted."""

from typing import Any

import pytest
from sqlalchemy import select

from shared.comparisons.claim import claim_next
from shared.comparisons.models import (
    Comparison,
    ComparisonAnswer,
    ComparisonEvent,
    ComparisonQuestion,
)
from shared.comparisons.state import State
from shared.comparisons.transitions import move
from shared.db import transaction
from shared.evidence.report import Report
from shared.jobs.state import State as JobState
from tests.services.api.conftest import BASE, UNSERVED, Api, Tenant, training_rows
from tests.services.api.test_jobs import advance
from tests.shared.evidence.reports import before_training, full

UNTUNED = [
    "copy_bm25",
    "copy_embedding",
    "zero_shot",
    "few_shot",
    "retrieved_1",
    "retrieved_3",
    "retrieved_5",
]


def compare(tenant: Tenant, **asked: Any) -> Any:
    """Ask for a comparison; return the answer."""
    headers = asked.pop("headers", {})
    return tenant.http.post("/v1/comparisons", json=asked, headers=headers)


def created(tenant: Tenant, **asked: Any) -> dict[str, Any]:
    answer = compare(tenant, model=BASE, training_file=tenant.upload(training_rows(12)), **asked)
    answer.raise_for_status()
    return dict(answer.json())


def finish(api: Api, comparison_id: str, report: Report | None = None) -> None:
    """End a comparison as the comparer would, with one question asked of one arm."""
    with transaction(api.system) as session:
        while (row := claim_next(session, "test")) and row.id != comparison_id:
            pass
        assert row is not None
        same = {"comparison_id": row.id, "tenant_id": row.tenant_id, "line": 3}
        session.add(ComparisonQuestion(**same, question="営業時間は?", expected="9時", cluster=0))
        session.add(
            ComparisonAnswer(
                **same,
                arm="zero_shot",
                answer="10時",
                cut=False,
                prompt_tokens=9,
                completion_tokens=2,
                score=0.0,
            )
        )
        made = (report or before_training()).model_dump(mode="json")
        move(session, row.id, State.SUCCEEDED, "done", attempt=row.attempt, report=made)


def test_a_comparison_before_training_asks_all_that_needs_no_job(tenant: Tenant) -> None:
    comparison = created(tenant, seed=7, metadata={"部署": "営業"})
    assert comparison["status"] == "queued"
    assert (comparison["arms"], comparison["seed"]) == (UNTUNED, 7)
    assert comparison["metadata"] == {"部署": "営業"}
    assert tenant.http.get(f"/v1/comparisons/{comparison['id']}").json() == comparison
    assert [each["id"] for each in tenant.http.get("/v1/comparisons").json()["data"]] == [
        comparison["id"]
    ]


def test_a_comparison_of_a_job_waits_for_it_and_asks_the_tuned_model_too(
    api: Api, tenant: Tenant
) -> None:
    job, held_out = tenant.create_job(), tenant.upload(training_rows(3))
    comparison = compare(tenant, job=job["id"], held_out_file=held_out).json()
    assert (comparison["status"], comparison["job"]) == ("waiting", job["id"])
    assert comparison["arms"] == [*UNTUNED, "tuned", "tuned_retrieved_3"]
    assert (comparison["training_file"], comparison["model"]) == (job["training_file"], BASE)
    learnt = compare(tenant, job=job["id"])
    assert (learnt.status_code, learnt.json()["error"]["param"]) == (400, "held_out_file")
    advance(api, job["id"], JobState.FAILED)
    answer = compare(tenant, job=job["id"], held_out_file=held_out)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "job")


def test_a_job_may_be_created_with_its_comparison_for_which_it_sets_rows_apart(
    tenant: Tenant,
) -> None:
    asked = {"model": BASE, "training_file": tenant.upload(training_rows(12)), "seed": 4}
    asked |= {"x_compare": {"questions": 20, "seed": 7, "checker": "exact"}}
    headers = {"Idempotency-Key": "once"}
    first, again = (
        tenant.http.post("/v1/fine_tuning/jobs", json=asked, headers=headers).json() for _ in "ab"
    )
    assert again["id"] == first["id"]
    assert first["hyperparameters"]["held_out"] == 20
    (comparison,) = tenant.http.get("/v1/comparisons").json()["data"]
    assert (comparison["status"], comparison["job"]) == ("waiting", first["id"])
    assert (comparison["held_out_file"], comparison["seed"]) == (None, 7)
    assert "tuned" in comparison["arms"]
    events = tenant.http.get(f"/v1/fine_tuning/jobs/{first['id']}/events").json()["data"]
    assert {"comparison": comparison["id"]} in [event["data"] for event in events]
    assert compare(tenant, job=first["id"]).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        ({"model": BASE}, 400, "training_file"),
        ({"training_file": "FILE"}, 400, "model"),
        ({"model": BASE, "training_file": "file-x"}, 404, "training_file"),
        ({"model": UNSERVED, "training_file": "FILE"}, 400, "model"),
        ({"job": "ftjob-x"}, 404, "fine_tuning_job_id"),
        ({"model": BASE, "training_file": "FILE", "job": "ftjob-x"}, 400, "training_file"),
        ({"model": BASE, "training_file": "FILE", "arms": ["tuned"]}, 400, "arms"),
        ({"model": BASE, "training_file": "FILE", "arms": ["documents"]}, 400, "arms"),
        ({"model": BASE, "training_file": "FILE", "arms": ["best"]}, 400, "arms.0"),
        ({"model": BASE, "training_file": "FILE", "arms": []}, 400, "arms"),
        ({"model": BASE, "training_file": "FILE", "documents": ["FILE"]}, 400, "documents[0]"),
        ({"model": BASE, "training_file": "FILE", "held_out_file": "x"}, 404, "held_out_file"),
        ({"model": BASE, "training_file": "FILE", "questions": 0}, 400, "questions"),
        ({"model": BASE, "training_file": "FILE", "checker": "judge"}, 400, "checker"),
        ({"model": BASE, "training_file": "FILE", "arm": "x"}, 400, "arm"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(
    tenant: Tenant, asked: dict[str, Any], status: int, param: str
) -> None:
    file = tenant.upload(training_rows(12))
    filled = {k: file if v == "FILE" else v for k, v in asked.items()}
    filled |= {"documents": [file]} if "documents" in asked else {}
    answer = compare(tenant, **filled)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert tenant.http.get("/v1/comparisons").json()["data"] == []


def test_a_repeated_request_makes_one_comparison(tenant: Tenant) -> None:
    file = tenant.upload(training_rows(12))
    key = {"idempotency-key": "once"}
    first, again = (
        compare(tenant, model=BASE, training_file=file, headers=key).json()["id"] for _ in range(2)
    )
    assert first == again
    other = compare(tenant, model=BASE, training_file=file, questions=5, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


def test_the_same_request_after_deleting_makes_a_new_one(tenant: Tenant) -> None:
    file = tenant.upload(training_rows(12))
    asked = {"model": BASE, "training_file": file, "headers": {"idempotency-key": "once"}}
    first = compare(tenant, **asked).json()["id"]
    tenant.http.post(f"/v1/comparisons/{first}/cancel").raise_for_status()
    tenant.http.delete(f"/v1/comparisons/{first}").raise_for_status()
    again = compare(tenant, **asked).json()["id"]
    assert again != first
    assert tenant.http.get(f"/v1/comparisons/{again}").status_code == 200


def test_a_finished_one_shows_report_rows_and_feed(api: Api, tenant: Tenant) -> None:
    comparison = created(tenant)
    at = f"/v1/comparisons/{comparison['id']}"
    early = tenant.http.get(f"{at}/report")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "comparison_not_finished")
    finish(api, comparison["id"])
    report = tenant.http.get(f"{at}/report").json()
    assert report == before_training().model_dump(mode="json")
    assert tenant.http.get(at).json()["verdict"] == report["verdict"]
    page = tenant.http.get(f"{at}/report", params={"format": "html", "language": "ja"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert '<html lang="ja"' in page.text
    (row,) = tenant.http.get(f"{at}/rows").json()["data"]
    assert (row["line"], row["question"], row["expected"]) == (3, "営業時間は?", "9時")
    assert [(each["arm"], each["answer"], each["score"]) for each in row["answers"]] == [
        ("zero_shot", "10時", 0.0)
    ]
    assert tenant.http.get(f"{at}/rows", params={"after": 3}).json()["data"] == []
    feed = tenant.http.get(f"{at}/events").json()["data"]
    assert [event["state"] for event in feed] == ["succeeded", "running", "queued"]
    older = tenant.http.get(f"{at}/events", params={"after": feed[0]["id"]}).json()["data"]
    assert older == feed[1:]


def test_jobs_that_learnt_a_share_of_the_same_rows_make_a_learning_curve(
    api: Api, tenant: Tenant, stranger: Tenant
) -> None:
    rows = full().data.training_rows

    def compared(owner: Tenant, file_id: str, share: float, seed: int = 1) -> str:
        asked = {"model": BASE, "training_file": file_id, "seed": seed, "x_training_share": share}
        asked |= {"x_compare": {"seed": 3}}
        job = owner.http.post("/v1/fine_tuning/jobs", json=asked).json()
        assert job["hyperparameters"]["training_share"] == share
        with transaction(api.system) as session:
            query = select(Comparison).where(Comparison.job_id == job["id"])
            comparison_id = session.scalars(query).one().id
            move(session, comparison_id, State.QUEUED, "its job has ended")
        finish(api, comparison_id, full().model_copy(update={"learning_curve": ()}))
        return comparison_id

    def curve(comparison_id: str) -> list[int]:
        report = tenant.http.get(f"/v1/comparisons/{comparison_id}/report").json()
        return [point["rows"] for point in report["learning_curve"]]

    mine, theirs = (owner.upload(training_rows(12)) for owner in (tenant, stranger))
    whole = compared(tenant, mine, 1.0)
    assert curve(whole) == []
    half = compared(tenant, mine, 0.5)
    compared(tenant, mine, 0.25, seed=2)
    compared(tenant, tenant.upload(training_rows(12)), 0.25)
    compared(stranger, theirs, 0.25)
    assert curve(whole) == curve(half) == [round(rows / 2), rows]
    tenant.http.delete(f"/v1/comparisons/{half}").raise_for_status()
    assert curve(whole) == []


def test_cancelling_ends_a_waiting_one_now_and_asks_the_comparer_to_end_a_running_one(
    api: Api, tenant: Tenant
) -> None:
    waiting = created(tenant)
    cancelled = tenant.http.post(f"/v1/comparisons/{waiting['id']}/cancel").json()
    assert (cancelled["status"], cancelled["cancel_requested"]) == ("cancelled", True)
    again = tenant.http.post(f"/v1/comparisons/{waiting['id']}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "comparison_already_ended")
    running = created(tenant)
    with transaction(api.system) as session:
        move(session, running["id"], State.RUNNING, "claimed", new_attempt=True)
    for _ in range(2):
        asked = tenant.http.post(f"/v1/comparisons/{running['id']}/cancel").json()
        assert (asked["status"], asked["cancel_requested"]) == ("running", True)


def test_a_deleted_one_leaves_nothing_that_was_said(api: Api, tenant: Tenant) -> None:
    comparison = created(tenant, metadata={"k": "v"})
    at = f"/v1/comparisons/{comparison['id']}"
    busy = tenant.http.delete(at)
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "comparison_in_use")
    finish(api, comparison["id"])
    assert tenant.http.delete(at).json()["deleted"] is True
    assert tenant.http.get(at).status_code == 404
    assert tenant.http.get("/v1/comparisons").json()["data"] == []
    with transaction(api.system) as session:
        for table in (ComparisonQuestion, ComparisonAnswer, ComparisonEvent):
            mine = select(table).where(table.comparison_id == comparison["id"])
            assert session.scalars(mine).all() == []
        row = session.get_one(Comparison, comparison["id"])
        assert (row.report, row.user_metadata) == (None, None)


def test_a_file_in_use_cannot_be_deleted(api: Api, tenant: Tenant) -> None:
    comparison = created(tenant)
    at = f"/v1/files/{comparison['training_file']}"
    busy = tenant.http.delete(at)
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "file_in_use")
    finish(api, comparison["id"])
    assert tenant.http.delete(at).status_code == 200
