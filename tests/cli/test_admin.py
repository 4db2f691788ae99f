from tests.cli.conftest import Reply, error_reply

JOB = {
    "id": "ftjob-1",
    "tenant_id": "org-1",
    "state": "paused",
    "state_changed_at": 0,
    "attempt": 2,
    "error": {"code": "served_differs", "message": "…"},
}


def test_jobs_are_listed_with_what_they_wait_for(api, tailor) -> None:
    api.on("GET /admin/jobs", Reply({"data": [JOB, JOB | {"id": "ftjob-2", "error": None}]}))
    command = ("admin", "jobs", "--tenant", "org-1", "--state", "paused", "--state", "queued")
    result = tailor(*command)
    assert result.exit_code == 0, result.output
    for word in ("ftjob-1", "ftjob-2", "org-1", "paused", "1970-01-01", "served_differs"):
        assert word in result.output
    (request,) = api.requests
    assert request.path == "/admin/jobs?tenant=org-1&state=paused&state=queued&limit=20"


def test_a_job_is_cancelled_and_resumed(api, tailor) -> None:
    api.on("POST /admin/jobs/ftjob-1/cancel", Reply(JOB | {"state": "cancelled"}))
    api.on("POST /admin/jobs/ftjob-1/resume", error_reply(409, "Only a paused job can be resumed."))
    assert tailor("admin", "cancel", "ftjob-1").output == "ftjob-1 cancelled\n"
    refused = tailor("admin", "resume", "ftjob-1")
    assert (refused.exit_code, "Only a paused job" in refused.output) == (1, True)
