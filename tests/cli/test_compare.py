"""``tailor compare``: what it asks for, how it follows, and what it writes."""

import json

import pytest

from tests.cli.conftest import Reply
from tests.cli.test_file import STORED
from tests.cli.test_job import ENDED, JOB
from tests.shared.evidence.reports import before_training, full

COMPARISON = {
    "id": "cmp-1",
    "status": "queued",
    "model": "base-of-today",
    "job": None,
    "progress": None,
    "verdict": None,
    "error": None,
}
RUNNING = {"status": "running", "progress": {"asked": 3, "total": 40, "arm": "zero_shot"}}
REPORT = before_training().model_dump(mode="json")
ROW = {"line": 3, "question": "営業は?", "expected": "9時", "cluster": 0, "answers": []}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.compare.POLL_SECONDS", 0.01)


@pytest.fixture
def compared(api):
    """An API that makes one comparison, which succeeds."""
    api.on("POST /comparisons", Reply(COMPARISON))
    api.on(
        "GET /comparisons/cmp-1",
        Reply(COMPARISON),
        Reply(COMPARISON | RUNNING),
        Reply(COMPARISON | {"status": "succeeded"}),
    )
    api.on("GET /comparisons/cmp-1/report", Reply(REPORT))
    return api


def test_a_file_is_uploaded_compared_and_its_report_shown(compared, tailor, tmp_path) -> None:
    compared.on("POST /files", Reply(STORED))
    path = tmp_path / "質問.jsonl"
    path.write_text("{}\n")
    result = tailor("compare", str(path), "--arm", "zero_shot", "--questions", "40")
    assert result.exit_code == 0, result.output
    asked = next(r.json for r in compared.requests if r.path == "/comparisons")
    assert (asked["training_file"], asked["arms"]) == (STORED["id"], ["zero_shot"])
    assert (asked["model"], asked["questions"]) == ("smollm2-135m-instruct", 40)
    assert "comparing: 3/40 answers, arm zero_shot" in result.output
    assert "Zero-shot" in result.output
    assert "tailor compare export cmp-1" in result.output


def test_a_jobs_model_is_compared_on_rows_it_has_not_seen(compared, tailor) -> None:
    result = tailor("compare", "job", "ftjob-1", "--held-out", "file-2")
    assert result.exit_code == 0, result.output
    asked = compared.requests[0].json
    assert (asked["job"], asked["held_out_file"]) == ("ftjob-1", "file-2")


def test_a_job_created_with_a_comparison_ends_with_its_report(compared, tailor) -> None:
    compared.on("POST /fine_tuning/jobs", Reply(JOB))
    compared.on("GET /fine_tuning/jobs/ftjob-1", Reply(JOB | ENDED))
    others = [COMPARISON | {"id": "cmp-2"}, COMPARISON | {"job": "ftjob-1"}]
    compared.on("GET /comparisons", Reply({"object": "list", "data": others, "has_more": False}))
    result = tailor("job", "create", "file-1", "--compare", "--wait")
    assert result.exit_code == 0, result.output
    assert "tailor compare export cmp-1" in result.output


def test_a_learning_curve_is_two_more_jobs_with_the_same_questions(compared, tailor) -> None:
    def of(job: str, name: str) -> dict[str, object]:
        asked = {"held_out_file": None, "checker": None, "max_tokens": None, "seed": 5}
        return COMPARISON | {"job": job, "id": name, "questions": 40} | asked

    numbers = {"batch_size": 4, "learning_rate_multiplier": 1.5, "rank": 8, "n_epochs": 3}
    job = JOB | {"seed": 9, "hyperparameters": numbers | {"forgetting_budget": None}}
    compared.on("GET /fine_tuning/jobs/ftjob-1", Reply(job))
    jobs = ("ftjob-2", "ftjob-3")
    compared.on("POST /fine_tuning/jobs", *(Reply(job | {"id": name}) for name in jobs))
    made = [of("ftjob-1", "cmp-1"), of("ftjob-2", "cmp-2"), of("ftjob-3", "cmp-3")]
    compared.on("GET /comparisons", Reply({"object": "list", "data": made, "has_more": False}))
    for each in made:
        compared.on(f"GET /comparisons/{each['id']}", Reply(each | {"status": "succeeded"}))
    report = full().model_dump(mode="json")
    compared.on("GET /comparisons/cmp-1/report", Reply(report))
    result = tailor("compare", "curve", "ftjob-1")
    assert result.exit_code == 0, result.output
    sent = [
        r.json for r in compared.requests if (r.method, r.path) == ("POST", "/fine_tuning/jobs")
    ]
    assert [each["x_training_share"] for each in sent] == [0.25, 0.5]
    for each in sent:
        assert (each["seed"], each["x_lora"]) == (9, {"rank": 8})
        assert (each["x_compare"]["seed"], each["x_compare"]["questions"]) == (5, 40)
        hyperparameters = each["method"]["supervised"]["hyperparameters"]
        assert hyperparameters == {"batch_size": 4, "learning_rate_multiplier": 1.5}
    assert "309 training rows" in result.output
    assert "more rows are likely to help" in result.output


def test_one_that_fails_says_why(api, tailor) -> None:
    error = {"code": "no_questions", "message": "There is no held-out row.", "param": None}
    api.on("POST /comparisons", Reply(COMPARISON))
    api.on("GET /comparisons/cmp-1", Reply(COMPARISON | {"status": "failed", "error": error}))
    result = tailor("compare", "file-1")
    assert result.exit_code == 1
    assert "There is no held-out row." in result.output


def test_what_is_exported(compared, tailor, tmp_path) -> None:
    rows = {"object": "list", "data": [ROW], "has_more": False}
    compared.on("GET /comparisons/cmp-1/rows", Reply(rows))
    page, data, answers = (tmp_path / name for name in ("r.html", "r.json", "r.jsonl"))
    result = tailor(
        *("compare", "export", "cmp-1", "--language", "ja"),
        *("--html", str(page), "--json", str(data), "--rows", str(answers)),
    )
    assert result.exit_code == 0, result.output
    assert '<html lang="ja"' in page.read_text()
    assert json.loads(data.read_text()) == REPORT
    assert json.loads(answers.read_text()) == ROW
    assert tailor("compare", "export", "cmp-1").exit_code == 1


def test_the_list_shows_verdicts(api, tailor) -> None:
    ended = COMPARISON | {"status": "succeeded", "verdict": {"kind": "retrieve"}}
    api.on("GET /comparisons", Reply({"object": "list", "data": [ended], "has_more": False}))
    result = tailor("compare", "list")
    assert "retrieve" in result.output


def test_cancelling_and_deleting(api, tailor) -> None:
    api.on("POST /comparisons/cmp-1/cancel", Reply(COMPARISON | {"status": "cancelled"}))
    api.on("DELETE /comparisons/cmp-1", Reply({"id": "cmp-1", "deleted": True}))
    assert tailor("compare", "cancel", "cmp-1").output == "cmp-1 cancelled\n"
    assert tailor("compare", "delete", "cmp-1").output == "cmp-1 deleted\n"
