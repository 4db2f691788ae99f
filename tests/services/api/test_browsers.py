"""Browsers and other people's URLs: CORS, HEAD, OPTIONS, slashes, and what is not here."""

from collections.abc import Iterator

import httpx
import openai
import pytest
from pydantic import SecretStr, ValidationError

from services.api.settings import ApiSettings
from tests.conftest import Database, PostgresServer
from tests.services.api.conftest import Api, Tenant, Upstream, running_api

ORIGINS = ("https://chat.example.com", "http://localhost:*", "https://*.corp.example")


@pytest.fixture(scope="module")
def open_api(postgres: PostgresServer, upstream_server: Upstream) -> Iterator[Api]:
    """An API that pages of some origins may call."""
    with (
        postgres.fresh_database() as database,
        running_api(database, upstream_server.url, cors_origins=ORIGINS) as running,
    ):
        yield running


def preflight(api: Api, origin: str, path: str = "/v1/chat/completions") -> httpx.Response:
    """Ask as a browser does, without a key."""
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    return api.client().options(path, headers=headers)


@pytest.mark.parametrize(
    "origin",
    ["https://chat.example.com", "http://localhost:3000", "https://a.corp.example"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/files/"])
def test_a_preflight_of_an_allowed_origin_is_answered_without_a_key(
    open_api: Api, origin: str, path: str
) -> None:
    answer = preflight(open_api, origin, path)
    assert answer.status_code in {200, 204}
    assert answer.headers["access-control-allow-origin"] == origin
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://chat.example.com.evil.example",
        "http://chat.example.com",
        "https://chatXexample.com",
        "https://corp.example",
        "https://evil.example/.corp.example",
        "null",
    ],
)
def test_other_origins_are_allowed_nothing(open_api: Api, origin: str) -> None:
    assert "access-control-allow-origin" not in preflight(open_api, origin).headers
    answer = open_api.client().get("/v1/models", headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_may_read_answers_errors_and_what_they_say_about_limits(open_api: Api) -> None:
    tenant = open_api.new_tenant()
    origin = {"origin": "http://localhost:3000"}
    answers = [
        tenant.http.get("/v1/models", headers=origin),
        open_api.client().get("/v1/models", headers=origin),
        tenant.http.post("/v1/chat/completions", headers=origin, content=b"{"),
        tenant.http.post("/v1/chat/completions", headers=origin, content=b" " * 3_000_000),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 400, 413]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "Origin" in answer.headers["vary"]
        exposed = answer.headers["access-control-expose-headers"]
        assert {"x-request-id", "retry-after"} <= set(exposed.split(", "))


def test_without_the_setting_only_pages_of_this_machine_may_call(api: Api) -> None:
    assert preflight(api, "http://localhost:3000").status_code == 200
    answer = preflight(api, "https://chat.example.com")
    assert "access-control-allow-origin" not in answer.headers


def test_an_empty_setting_allows_no_origin(database: Database, upstream: Upstream) -> None:
    with running_api(database, upstream.url, cors_origins=()) as api:
        assert preflight(api, "http://localhost:3000").status_code == 401


def test_a_star_alone_allows_every_page(postgres: PostgresServer, upstream: Upstream) -> None:
    with (
        postgres.fresh_database() as database,
        running_api(database, upstream.url, cors_origins=("*",)) as api,
    ):
        answer = preflight(api, "https://anything.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://a.example/", "a.example", "https://a.example/x", ""])
def test_what_is_no_origin_is_refused_when_the_api_starts(origin: str) -> None:
    secrets = {
        name: SecretStr("x")
        for name in (
            "database_url",
            "system_database_url",
            "broker_url",
            "inference_secret",
            "cache_salt_key",
        )
    }
    with pytest.raises(ValidationError, match="cors_origins"):
        ApiSettings.model_validate(
            {
                **secrets,
                "store_dir": "/x",
                "models_dir": "/x",
                "cors_origins": [origin],
            }
        )


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/files", "/v1/files/{file}", "/v1/files/{file}/content", "/healthz"]
)
def test_head_answers_as_get_without_a_body(tenant: Tenant, path: str) -> None:
    path = path.format(file=tenant.upload(b"{}", purpose="assistants"))
    got, head = tenant.http.get(path), tenant.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/v1/chat/completions", {"POST", "GET"}),
        ("OPTIONS", "/v1/files", {"GET", "HEAD", "POST"}),
        ("PUT", "/v1/files", {"GET", "HEAD", "POST"}),
        ("PATCH", "/v1/models/x", {"GET", "HEAD", "DELETE"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("GET", "/v1/completions", {"POST"}),
    ],
)
def test_another_method_is_a_405_that_names_those_there_are(
    tenant: Tenant, method: str, path: str, allowed: set[str]
) -> None:
    answer = tenant.http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert allowed <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize(
    "path", ["/v1/files/", "/v1/models/", "/v1//models", "//v1/files", "/v1/fine_tuning/jobs///"]
)
def test_too_many_slashes_are_served_and_never_redirected(tenant: Tenant, path: str) -> None:
    url = str(tenant.http.base_url).rstrip("/") + path
    answer = tenant.http.get(url, headers={"host": "evil.example"}, follow_redirects=False)
    assert (answer.status_code, answer.json()["object"]) == (200, "list")
    assert "location" not in answer.headers
    assert "evil.example" not in answer.text


@pytest.mark.parametrize("path", ["//admin/tenants", "/admin//tenants/", "/metrics/", "//metrics"])
def test_slashes_open_no_door(tenant: Tenant, path: str) -> None:
    url = str(tenant.http.base_url).rstrip("/") + path
    assert tenant.http.get(url).status_code == 403
    assert httpx.get(url, trust_env=False).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/v1/responses", "/v1/chat/completions"),
        ("GET", "/v1/responses/resp_1", "/v1/chat/completions"),
        ("POST", "/v1/embeddings", "Embeddings"),
        ("POST", "/v1/audio/transcriptions", "Speech"),
        ("POST", "/v1/images/generations", "Images"),
        ("POST", "/v1/moderations", "Moderation"),
        ("GET", "/v1/assistants", "Assistants"),
        ("POST", "/v1/threads/t/runs", "Assistants"),
        ("POST", "/v1/batches", "Batches"),
        ("GET", "/v1/chat/completions", "not kept"),
        ("GET", "/v1/chat/completions/chatcmpl-1", "not kept"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages", "not kept"),
        ("POST", "/v1/chat/completions/chatcmpl-1", "not kept"),
        ("DELETE", "/v1/chat/completions/chatcmpl-1", "not kept"),
    ],
)
def test_what_is_not_here_says_so_in_one_sentence(
    tenant: Tenant, method: str, path: str, said: str
) -> None:
    answer = tenant.http.request(method, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "unsupported_endpoint")
    assert said in error["message"]


def test_the_official_client_shows_these_sentences(tenant: Tenant) -> None:
    for ask in (
        lambda: tenant.openai.responses.create(model="x", input="hi"),
        tenant.openai.chat.completions.list,
        lambda: tenant.openai.chat.completions.delete("chatcmpl-1"),
        lambda: tenant.openai.embeddings.create(model="x", input="hi"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "unsupported_endpoint"


def test_a_strict_client_lists_files_of_every_purpose(tenant: Tenant) -> None:
    for purpose in ("evals", "assistants", "vision"):
        tenant.upload(b"{}", purpose=purpose)
    strict = openai.OpenAI(
        base_url=tenant.openai.base_url,
        api_key=tenant.key,
        http_client=tenant.openai._client,
        _strict_response_validation=True,
    )
    assert len(strict.files.list().data) == 3
    kept = tenant.http.get("/v1/files", params={"purpose": "evals"}).json()["data"]
    assert len(kept) == 1


@pytest.mark.parametrize("after", ["nonsense", "ftjob-1", "file-01ARZ3", "'; --", "日本"])
@pytest.mark.parametrize("listed", ["files", "fine_tuning/jobs", "events", "checkpoints"])
def test_a_cursor_that_is_no_id_is_a_400_on_every_list(
    tenant: Tenant, listed: str, after: str
) -> None:
    if listed in {"events", "checkpoints"}:
        listed = f"fine_tuning/jobs/{tenant.create_job()['id']}/{listed}"
    answer = tenant.http.get(f"/v1/{listed}", params={"after": after})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


def test_the_cursor_may_have_been_deleted_meanwhile(tenant: Tenant) -> None:
    ids = [tenant.upload(b"{}", purpose="assistants") for _ in range(3)]
    tenant.http.delete(f"/v1/files/{ids[2]}")
    listed = tenant.http.get("/v1/files", params={"after": ids[2]}).json()["data"]
    assert [file["id"] for file in listed] == [ids[1], ids[0]]


@pytest.mark.parametrize("owner", ["own", "another's", "nobody's"])
def test_training_on_a_fine_tuned_model_is_refused_in_words(
    api: Api, tenant: Tenant, stranger: Tenant, owner: str
) -> None:
    names = {
        "own": api.add_adapter(tenant),
        "another's": api.add_adapter(stranger),
        "nobody's": "ft:x:y::z",
    }
    asked = {"model": names[owner], "training_file": "file-x"}
    answer = tenant.http.post("/v1/fine_tuning/jobs", json=asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "model")
    assert "base model" in error["message"]
