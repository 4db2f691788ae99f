"""Every route as a second tenant: the same answer as for an id that does not exist."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute

from services.api.app import create_app
from shared.jobs.state import State
from tests.services.api.conftest import BASE, Api, Tenant, training_rows
from tests.services.api.test_jobs import advance

PLACEHOLDER = re.compile(r"\{[^}]*\}")
MESSAGES = [{"role": "user", "content": "こんにちは"}]


@dataclass
class Owned:
    """What the first tenant owns."""

    file: str
    job: str
    model: str
    event: str
    comparison: str


@pytest.fixture
def owned(api: Api, tenant: Tenant) -> Owned:
    """One of everything."""
    job = tenant.create_job()
    way = (State.QUEUED, State.STARTING, State.RUNNING, State.PUBLISHING, State.SUCCEEDED)
    advance(api, job["id"], *way)
    event = tenant.http.get(f"/v1/fine_tuning/jobs/{job['id']}/events").json()["data"][0]["id"]
    model = api.add_adapter(tenant, job["id"])
    asked = {"job": job["id"], "held_out_file": tenant.upload(training_rows(3))}
    comparison = tenant.http.post("/v1/comparisons", json=asked).json()["id"]
    return Owned(job["training_file"], job["id"], model, event, comparison)


ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/files/{file}", {}),
    ("GET", "/v1/files/{file}/content", {}),
    ("GET", "/v1/files/{file}/rows", {}),
    ("DELETE", "/v1/files/{file}", {}),
    ("POST", "/v1/fine_tuning/jobs", {"model": BASE, "training_file": "{file}"}),
    ("POST", "/v1/fine_tuning/jobs", {"model": "{model}", "training_file": "{file}"}),
    ("GET", "/v1/fine_tuning/jobs/{job}", {}),
    ("POST", "/v1/fine_tuning/jobs/{job}/cancel", {}),
    ("POST", "/v1/fine_tuning/jobs/{job}/resume", {}),
    ("GET", "/v1/fine_tuning/jobs/{job}/events", {}),
    ("GET", "/v1/fine_tuning/jobs/{job}/live", {}),
    ("POST", "/v1/fine_tuning/jobs/estimate", {"model": BASE, "training_file": "{file}"}),
    ("GET", "/v1/fine_tuning/jobs/{job}/checkpoints", {}),
    ("GET", "/v1/fine_tuning/jobs/{job}/examples", {}),
    ("POST", "/v1/comparisons", {"model": BASE, "training_file": "{file}"}),
    ("POST", "/v1/comparisons", {"job": "{job}", "held_out_file": "{file}"}),
    ("GET", "/v1/comparisons/{comparison}", {}),
    ("GET", "/v1/comparisons/{comparison}/report", {}),
    ("GET", "/v1/comparisons/{comparison}/rows", {}),
    ("GET", "/v1/comparisons/{comparison}/events", {}),
    ("POST", "/v1/comparisons/{comparison}/cancel", {}),
    ("DELETE", "/v1/comparisons/{comparison}", {}),
    ("GET", "/v1/models/{model}", {}),
    ("DELETE", "/v1/models/{model}", {}),
    ("POST", "/v1/chat/completions", {"model": "{model}", "messages": MESSAGES}),
    ("POST", "/v1/chat/completions", {"model": "{model}", "messages": MESSAGES, "stream": True}),
    ("POST", "/v1/completions", {"model": "{model}", "prompt": "x"}),
]
MISSING = Owned("file-MISSING", "ftjob-MISSING", "ft:missing", "ftevent-MISSING", "cmp-MISSING")


def ask(tenant: Tenant, method: str, path: str, body: dict[str, Any], ids: Owned) -> Any:
    """Send one request and return status and body, with the ids taken out."""
    names = vars(ids)
    filled = {k: v.format(**names) if isinstance(v, str) else v for k, v in body.items()}
    answer = tenant.http.request(method, path.format(**names), json=filled or None)
    text = answer.text
    for value in names.values():
        text = text.replace(value, "ID")
    return answer.status_code, text


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_a_strangers_id_answers_like_a_missing_one(
    owned: Owned, stranger: Tenant, method: str, path: str, body: dict[str, Any]
) -> None:
    theirs = ask(stranger, method, path, body, owned)
    assert theirs == ask(stranger, method, path, body, MISSING)
    # To train on any fine-tuned model, whoever's, is refused before it is looked for.
    expected = 400 if body.get("model") == "{model}" and "training_file" in body else 404
    assert theirs[0] == expected


def test_all_routes_with_an_id_or_a_body_are_walked(api: Api) -> None:
    walked = {(method, PLACEHOLDER.sub("{}", path)) for method, path, _ in ROUTES}
    with_an_id_or_a_body = {
        (method, PLACEHOLDER.sub("{}", route.path))
        for route in create_app(api.settings).routes
        if isinstance(route, APIRoute) and route.path.startswith("/v1/")
        if "{" in route.path or route.body_field
        for method in route.methods - {"HEAD"}
    }
    assert walked == with_an_id_or_a_body


def test_lists_show_nothing_of_a_stranger(owned: Owned, stranger: Tenant) -> None:
    assert stranger.openai.files.list().data == []
    assert stranger.openai.fine_tuning.jobs.list().data == []
    assert [model.id for model in stranger.openai.models.list()] == [BASE]
    assert stranger.http.get("/v1/comparisons").json()["data"] == []


def test_a_strangers_id_as_cursor_shows_nothing_of_theirs(owned: Owned, stranger: Tenant) -> None:
    own = stranger.create_job()
    newer = stranger.http.get("/v1/fine_tuning/jobs", params={"after": own["id"]}).json()
    assert newer["data"] == []
    events = stranger.http.get(
        f"/v1/fine_tuning/jobs/{own['id']}/events", params={"after": owned.event}
    )
    assert events.status_code == 404


def test_the_owner_still_has_everything(owned: Owned, tenant: Tenant, stranger: Tenant) -> None:
    for method, path, body in ROUTES:
        ask(stranger, method, path, body, owned)
    assert tenant.openai.files.content(owned.file).read() == training_rows(12)
    assert tenant.openai.fine_tuning.jobs.retrieve(owned.job).status == "succeeded"
    assert tenant.openai.models.retrieve(owned.model).id == owned.model
    assert tenant.http.get(f"/v1/comparisons/{owned.comparison}").json()["status"] == "queued"
