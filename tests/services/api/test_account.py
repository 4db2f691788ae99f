"""A tenant as it sees itself."""

from tests.services.api.conftest import Api, Tenant, training_rows


def test_an_account_has_its_own_figures_and_nobody_elses(api: Api, tenant: Tenant) -> None:
    rows = training_rows(12)
    tenant.create_job(training_file=tenant.upload(rows))
    api.add_adapter(tenant)
    other = api.new_tenant().http.get("/v1/account").json()
    shown = tenant.http.get("/v1/account").json()
    assert (shown["id"], shown["object"]) == (tenant.id, "account")
    assert shown["usage"] == {
        "stored_bytes": len(rows),
        "queued_jobs": 1,
        "jobs": 1,
        "models": 1,
        "trained_tokens": 0,
    }
    assert set(other["usage"].values()) == {0}
    assert shown["limits"]["queued_jobs"] > 0


def test_an_account_shows_its_working_keys_by_their_ends(api: Api, tenant: Tenant) -> None:
    admin = api.admin()
    second = admin.post(f"/admin/tenants/{tenant.id}/keys").json()
    shown = tenant.http.get("/v1/account").json()["keys"]
    assert [key["hint"] for key in shown] == [tenant.key[-4:], second["api_key"][-4:]]
    assert not {tenant.key, second["api_key"]} & set(str(shown).split("'"))
    admin.delete(f"/admin/keys/{second['id']}")
    assert len(tenant.http.get("/v1/account").json()["keys"]) == 1
