import json
from typing import Any

import pytest

from tests.cli.conftest import Reply, error_reply
from tests.cli.test_file import JAPANESE, STORED

JOB = {
    "id": "ftjob-1",
    "object": "fine_tuning.job",
    "model": "smollm2-135m-instruct",
    "created_at": 100,
    "finished_at": None,
    "fine_tuned_model": None,
    "organization_id": "org-1",
    "result_files": [],
    "status": "queued",
    "training_file": "file-1",
    "validation_file": None,
    "hyperparameters": {"n_epochs": 4, "batch_size": 4, "learning_rate_multiplier": 1.0},
    "trained_tokens": None,
    "error": None,
    "seed": 1,
}
PROGRESS = {"step": 9, "total_steps": 36, "loss": 0.5, "seconds_left": 83.0}
METRICS = {
    "base_loss": 2.5,
    "base_accuracy": 0.5,
    "final_loss": 0.01,
    "final_accuracy": 0.995,
}
MODEL = "ft:smollm2-135m-instruct:org-1:door:ABCDEFGH"
"""Its suffix stands between colons, as the name of an emoji does."""
ENDED = {"status": "succeeded", "finished_at": 285, "fine_tuned_model": MODEL, "metrics": METRICS}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.watch.POLL_SECONDS", 0.01)


def test_create_asks_for_auto_and_prints_the_id(api, tailor) -> None:
    api.on("POST /fine_tuning/jobs", Reply(JOB))
    result = tailor("job", "create", "file-1")
    assert result.output == "ftjob-1\n"
    sent = api.requests[0].json
    assert sent["model"] == "smollm2-135m-instruct"
    assert sent["training_file"] == "file-1"
    assert set(sent["method"]["supervised"]["hyperparameters"].values()) == {"auto"}


def test_the_base_model_is_the_served_one_unless_another_is_named(api, tailor) -> None:
    api.serve("ft:base-of-today:org:x:12345678", "base-of-today")
    api.on("POST /fine_tuning/jobs", Reply(JOB))
    assert tailor("job", "create", "file-1").exit_code == 0
    assert tailor("job", "create", "file-1", "--model", "other").exit_code == 0
    assert [request.json["model"] for request in api.requests] == ["base-of-today", "other"]


def test_without_a_served_base_model_create_says_so(api, tailor) -> None:
    api.serve()
    result = tailor("job", "create", "file-1")
    assert result.exit_code == 1
    assert "serves no base model" in result.output


def test_resume_names_the_job_and_its_status(api, tailor) -> None:
    api.on("POST /fine_tuning/jobs/ftjob-1/resume", Reply(JOB))
    assert tailor("job", "resume", "ftjob-1").output == "ftjob-1 queued\n"


def test_create_uploads_a_path_and_passes_what_was_asked(api, tailor) -> None:
    api.on("POST /files", Reply(STORED))
    api.on("POST /fine_tuning/jobs", Reply(JOB))
    result = tailor("job", "create", JAPANESE, "--epochs", "3", "--seed", "7", "--suffix", "kiln")
    assert result.exit_code == 0
    sent = api.requests[1].json
    assert (sent["training_file"], sent["seed"], sent["suffix"]) == ("file-1", 7, "kiln")
    assert sent["method"]["supervised"]["hyperparameters"]["n_epochs"] == 3


def test_a_budget_and_a_comparison_are_asked_for(api, tailor) -> None:
    api.on("POST /fine_tuning/jobs", Reply(JOB))
    asked = ("job", "create", "file-1", "--seed", "7", "--forgetting-budget", "0.1", "--compare")
    assert tailor(*asked).exit_code == 0
    sent = api.requests[0].json
    assert (sent["x_forgetting_budget"], sent["x_compare"]) == (0.1, {"seed": 7})


def test_the_summary_has_what_chose_nothing_and_what_was_forgotten(api, tailor) -> None:
    test = {"base_test_loss": 2.6, "test_loss": 0.03, "reported_on": "test"}
    test |= {"base_test_mean_token_accuracy": 0.45, "test_mean_token_accuracy": 0.985}
    general = {"text_before": 3.4, "text_after": 3.7}
    general |= {"instructions_before": 1.8, "instructions_after": 1.9}
    generated = {"checker": "fact", "n": 20, "score": 0.9, "interval": [0.699, 0.972]}
    test |= {"generated": generated | {"on": "test"}}
    ended = ENDED | {"metrics": METRICS | test | {"forgetting": general}}
    api.on("GET /fine_tuning/jobs/ftjob-1", Reply(JOB | ended))
    shown = tailor("job", "watch", "ftjob-1").output
    for figure in ("2.6000", "0.0300", "45.0 %", "98.5 %", "3.4000", "3.7000", "1.9000"):
        assert figure in shown
    assert "test rows: 20 answers, fact" in shown
    assert "90.0 % (69.9 % to 97.2 %)" in shown


def test_watch_shows_progress_and_ends_with_a_summary(api, tailor) -> None:
    running = JOB | {"status": "running", "progress": PROGRESS}
    api.on("GET /fine_tuning/jobs/ftjob-1", Reply(JOB), Reply(running), Reply(JOB | ENDED))
    result = tailor("job", "watch", "ftjob-1")
    assert result.exit_code == 0
    assert "step 9/36  loss 0.5000  1 min 23 s left" in result.output
    for shown in ("2.5000", "0.0100", "50.0 %", "99.5 %", "3 min 05 s", f"tailor chat {MODEL}"):
        assert shown in result.output


def test_waiting_for_a_job_that_fails_exits_non_zero_with_its_reason(api, tailor) -> None:
    error = {"code": "invalid_training_file", "message": "Line 4: no answer", "param": None}
    api.on("POST /fine_tuning/jobs", Reply(JOB))
    api.on("GET /fine_tuning/jobs/ftjob-1", Reply(JOB | {"status": "failed", "error": error}))
    result = tailor("job", "create", "file-1", "--wait")
    assert result.exit_code == 1
    assert "Line 4: no answer" in result.output


def test_show_is_the_job_as_json(api, tailor) -> None:
    api.on("GET /fine_tuning/jobs/ftjob-1", Reply(JOB | {"progress": PROGRESS}))
    shown = json.loads(tailor("job", "show", "ftjob-1").output)
    assert shown["id"] == "ftjob-1"
    assert shown["progress"] == PROGRESS


def test_show_pretty_has_the_data_report_with_its_lines(api, tailor) -> None:
    finding = {
        "kind": "duplicate",
        "severity": "warn",
        "file": "training_file",
        "count": 2,
        "lines": [7, 9],
        "like": [3, 4],
    }
    report = {"training_file": {"rows": 12, "languages": {"ja": 12}}, "findings": [finding]}
    api.on("GET /fine_tuning/jobs/ftjob-1", Reply(JOB | {"data_report": report}))
    shown = tailor("job", "show", "ftjob-1", "--pretty").output
    for part in ("ftjob-1 queued", "ja 12", "exactly the same", "7 (like 3), 9 (like 4)"):
        assert part in shown


def test_what_was_learnt_of_the_first_batch_is_marked_with_and_without_colours(api, tailor) -> None:
    spans = [{"text": "<|im_start|>user\n店は?", "learnt": False}, {"text": "9時", "learnt": True}]
    batch = [{"line": 3, "tokens": 9, "spans": spans}]
    shown = {"first_batch": batch, "answers": {}, "object": "fine_tuning.job.examples"}
    api.on("GET /fine_tuning/jobs/ftjob-1/examples", Reply(shown))
    plain = tailor("job", "examples", "ftjob-1").output
    assert "line 3, 9 tokens\n<|im_start|>user\n店は?⟦9時⟧\n" in plain
    colours = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[1;32m⟦9時⟧" in tailor("job", "examples", "ftjob-1", env=colours).output


def test_the_best_the_worst_and_other_answers_are_shown_with_their_line_and_score(
    api, tailor
) -> None:
    def answer(line: int, score: float) -> dict[str, Any]:
        texts = {"question": "[b]店は?", "expected": "9時", "answer": f"{line}時"}
        return texts | {"line": line, "score": score}

    answers = {"best": [answer(9, 1)], "worst": [answer(12, 0)], "random": [answer(15, 0.25)]}
    shown = {"first_batch": [], "answers": answers, "object": "fine_tuning.job.examples"}
    api.on("GET /fine_tuning/jobs/ftjob-1/examples", Reply(shown))
    rows = tailor("job", "examples", "ftjob-1").output.splitlines()
    for parts in (("best", " 9 ", "1.00"), ("worst", "12時", "0.00"), ("random", "15時", "0.25")):
        (row,) = [row for row in rows if parts[0] in row]
        assert all(part in row for part in (*parts, "[b]店は?", "9時"))


def test_a_number_that_is_out_of_range_is_sent_and_not_taken_for_auto(api, tailor) -> None:
    api.on("POST /fine_tuning/jobs", error_reply(400, "n_epochs: too small"))
    assert tailor("job", "create", "file-1", "--epochs", "0").exit_code == 1
    assert api.requests[0].json["method"]["supervised"]["hyperparameters"]["n_epochs"] == 0


def test_no_proxy_of_the_environment_sees_what_stays_on_this_machine(
    api, tailor, monkeypatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    api.on("GET /fine_tuning/jobs/ftjob-1", Reply(JOB))
    api.on("DELETE /admin/keys/key_2", Reply({"id": "key_2"}))
    assert tailor("job", "show", "ftjob-1").exit_code == 0
    assert tailor("key", "revoke", "key_2").exit_code == 0


def test_list_and_cancel_name_the_job(api, tailor) -> None:
    listed = {"object": "list", "data": [JOB | ENDED], "has_more": False}
    api.on("GET /fine_tuning/jobs", Reply(listed))
    api.on("POST /fine_tuning/jobs/ftjob-1/cancel", Reply(JOB | {"status": "cancelled"}))
    shown = tailor("job", "list").output
    assert "ftjob-1" in shown
    assert MODEL in shown
    assert tailor("job", "cancel", "ftjob-1").output == "ftjob-1 cancelled\n"
