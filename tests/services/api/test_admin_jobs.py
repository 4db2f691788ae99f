"""Any tenant's jobs as the administrator sees them, and may cancel and resume them."""

import pytest

from shared.jobs.state import State
from tests.services.api.conftest import Api, Tenant
from tests.services.api.test_jobs import advance

TO_PAUSED = (State.QUEUED, State.STARTING, State.RUNNING, State.PUBLISHING, State.PAUSED)


def listed(api: Api, **wanted: str | list[str]) -> list[str]:
    """Return the ids of the jobs that the administrator's list shows."""
    answer = api.admin().get("/admin/jobs", params=wanted)
    answer.raise_for_status()
    return [job["id"] for job in answer.json()["data"]]


def messages(tenant: Tenant, job_id: str) -> list[str]:
    """Return what the owner reads in the job's feed, newest first."""
    events = tenant.http.get(f"/v1/fine_tuning/jobs/{job_id}/events").json()["data"]
    return [event["message"] for event in events]


def test_all_jobs_are_listed_newest_first_by_tenant_and_state(
    api: Api, tenant: Tenant, stranger: Tenant
) -> None:
    first, second, theirs = (one.create_job()["id"] for one in (tenant, tenant, stranger))
    api.validated(second)
    assert listed(api)[:3] == [theirs, second, first]
    assert listed(api, tenant=tenant.id) == [second, first]
    assert listed(api, tenant=tenant.id, state="queued") == [second]
    assert listed(api, tenant=tenant.id, state=["queued", "validating"]) == [second, first]
    assert listed(api, tenant=tenant.id, limit="1") == [second]
    assert listed(api, tenant=tenant.id, after=second) == [first]
    assert listed(api, tenant="org-none") == []
    for nonsense in ({"state": "lost"}, {"tenant": "\x00"}, {"after": "org-1"}):
        assert api.admin().get("/admin/jobs", params=nonsense).status_code == 400


def test_a_job_is_shown_with_what_it_waits_for_and_nothing_of_its_data(
    api: Api, tenant: Tenant
) -> None:
    job_id = tenant.create_job(metadata={"部署": "営業"}, suffix="geheim")["id"]
    answer = api.admin().get("/admin/jobs", params={"tenant": tenant.id})
    (job,) = answer.json()["data"]
    assert (job["id"], job["tenant_id"], job["attempt"]) == (job_id, tenant.id, 0)
    assert (job["state"], job["status"]) == ("validating", "validating_files")
    assert not [word for word in ("営業", "geheim", "file-") if word in answer.text]
    events = api.admin().get(f"/admin/jobs/{job_id}/events", params={"limit": 1}).json()
    assert [event["message"] for event in events["data"]] == messages(tenant, job_id)[:1]
    assert events["has_more"]


def test_a_job_is_cancelled_and_its_owner_reads_by_whom(api: Api, tenant: Tenant) -> None:
    job_id = tenant.create_job()["id"]
    cancelled = api.admin().post(f"/admin/jobs/{job_id}/cancel").json()
    assert (cancelled["state"], cancelled["tenant_id"]) == ("cancelled", tenant.id)
    assert tenant.openai.fine_tuning.jobs.retrieve(job_id).status == "cancelled"
    assert "administrator" in messages(tenant, job_id)[0]
    again = api.admin().post(f"/admin/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "job_already_ended")


def test_a_paused_job_goes_on(api: Api, tenant: Tenant) -> None:
    job_id = tenant.create_job()["id"]
    early = api.admin().post(f"/admin/jobs/{job_id}/resume")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "job_not_paused")
    advance(api, job_id, *TO_PAUSED)
    assert api.admin().post(f"/admin/jobs/{job_id}/resume").json()["state"] == "queued"
    assert "administrator" in messages(tenant, job_id)[0]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "events"), ("POST", "cancel"), ("POST", "resume")]
)
def test_a_missing_job_is_a_404_and_a_tenants_key_opens_none(
    api: Api, tenant: Tenant, method: str, path: str
) -> None:
    assert api.admin().request(method, f"/admin/jobs/ftjob-none/{path}").status_code == 404
    job_id = tenant.create_job()["id"]
    assert tenant.http.request(method, f"/admin/jobs/{job_id}/{path}").status_code == 403
    assert tenant.http.get("/admin/jobs").status_code == 403
