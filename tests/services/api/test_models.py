"""Models over HTTP."""

import openai
import pytest

from tests.services.api.conftest import BASE, UNSERVED, Api, Tenant, training_rows


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
    with pytest.raises(openai.NotFoundError):
        tenant.openai.fine_tuning.jobs.create(model=UNSERVED, training_file=file_id)
    with pytest.raises(openai.NotFoundError):
        tenant.openai.completions.create(model=UNSERVED, prompt="x")


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
