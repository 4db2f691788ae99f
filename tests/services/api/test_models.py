"""Models over HTTP."""

import openai
import pytest

from services.api.completions.upstream import error_of
from shared.ids import new_id
from tests.conftest import Database
from tests.services.api.conftest import BASE, UNSERVED, Api, Tenant, running_api, training_rows


def test_the_list_holds_the_served_base_and_own_models(api: Api, tenant: Tenant) -> None:
    own = api.add_adapter(tenant)
    models = {model.id: model for model in tenant.openai.models.list()}
    assert set(models) == {BASE, own}
    assert models[own].owned_by == tenant.id
    assert models[BASE].owned_by == "tailor"
    assert tenant.openai.models.retrieve(own) == models[own]
    assert tenant.openai.models.retrieve(BASE).object == "model"


def test_a_base_that_inference_does_not_serve_is_not_offered(tenant: Tenant) -> None:
    file_id = tenant.upload(training_rows(12))
    with pytest.raises(openai.NotFoundError):
        tenant.openai.models.retrieve(UNSERVED)
    with pytest.raises(openai.BadRequestError) as caught:
        tenant.openai.fine_tuning.jobs.create(model=UNSERVED, training_file=file_id)
    assert (caught.value.code, caught.value.param) == ("base_not_served", "model")
    assert f"serves `{BASE}`" in caught.value.message
    with pytest.raises(openai.NotFoundError, match=f"offered on `{BASE}`"):
        tenant.openai.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file_id)
    with pytest.raises(openai.NotFoundError):
        tenant.openai.completions.create(model=UNSERVED, prompt="x")


def test_a_base_that_is_served_and_not_proven_is_not_offered_and_says_so(
    database: Database,
) -> None:
    with running_api(database, "http://127.0.0.1:9", base_model=UNSERVED) as api:
        tenant = api.new_tenant()
        assert list(tenant.openai.models.list()) == []
        file_id = tenant.upload(training_rows(12))
        with pytest.raises(openai.BadRequestError, match=f"tailor model check {UNSERVED}"):
            tenant.openai.fine_tuning.jobs.create(model=UNSERVED, training_file=file_id)


@pytest.mark.parametrize("base", [UNSERVED, "a-base-of-long-ago"])
def test_a_model_of_another_base_is_listed_as_unavailable_and_says_why_when_called(
    api: Api, tenant: Tenant, base: str
) -> None:
    own, now = api.add_adapter(tenant, base_model=base), api.add_adapter(tenant)
    models = {model.id: model.model_extra or {} for model in tenant.openai.models.list()}
    assert [models[name]["available"] for name in (own, now, BASE)] == [False, True, True]
    assert f"serves `{BASE}`" in models[own]["unavailable_reason"]
    assert models[now]["unavailable_reason"] is None
    assert tenant.openai.models.retrieve(own).model_extra == models[own]
    with pytest.raises(openai.ConflictError) as caught:
        tenant.openai.completions.create(model=own, prompt="x")
    assert (caught.value.code, caught.value.param) == ("base_not_served", "model")
    assert f"trained on `{base}`" in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_deleting_a_model_deletes_its_jobs_checkpoints(api: Api, tenant: Tenant) -> None:
    job, other = (tenant.create_job()["id"] for _ in range(2))
    model, kept = api.add_adapter(tenant, job), api.add_adapter(tenant, other)
    steps = [api.add_adapter(tenant, job, step) for step in (10, 20)]
    kept_step = api.add_adapter(tenant, other, 10)
    answer = tenant.http.delete(f"/v1/models/{model}").json()
    assert answer == {"id": model, "object": "model", "deleted": True}
    assert {row.id for row in tenant.openai.models.list()} == {BASE, kept, kept_step}
    for name in (model, *steps):
        with pytest.raises(openai.NotFoundError):
            tenant.openai.completions.create(model=name, prompt="x")
    assert tenant.openai.fine_tuning.jobs.checkpoints.list(job).data == []


def test_a_checkpoint_is_deleted_alone(api: Api, tenant: Tenant) -> None:
    job = tenant.create_job()["id"]
    model = api.add_adapter(tenant, job)
    first, second = (api.add_adapter(tenant, job, step) for step in (10, 20))
    assert tenant.openai.models.delete(first).deleted
    assert {row.id for row in tenant.openai.models.list()} == {BASE, model, second}


def test_a_deleted_model_is_gone_and_cannot_be_called(api: Api, tenant: Tenant) -> None:
    own = api.add_adapter(tenant)
    assert tenant.openai.models.delete(own).deleted
    assert [model.id for model in tenant.openai.models.list()] == [BASE]
    with pytest.raises(openai.NotFoundError) as caught:
        tenant.openai.chat.completions.create(
            model=own, messages=[{"role": "user", "content": "はい"}]
        )
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        tenant.openai.models.delete(own)


def test_a_base_model_cannot_be_deleted(tenant: Tenant) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        tenant.openai.models.delete(BASE)


def test_a_slash_in_a_name_is_just_another_unknown_model(tenant: Tenant) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        tenant.openai.models.retrieve("other/model")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("code", ["adapter_refused", "base_not_served"])
def test_a_refusal_of_the_inference_service_keeps_its_code_and_hides_the_adapters_id(
    code: str,
) -> None:
    adapter = new_id("ad_")
    refusal = {"message": f"{adapter}: layer 19 is outside the profile", "code": code}
    error = error_of(422, {"error": refusal}, "ft:mine")
    assert (error.status, error.code, error.param) == (409, code, "model")
    assert "`ft:mine` cannot be served" in error.message
    assert "layer 19" in error.message
    assert adapter not in error.message
