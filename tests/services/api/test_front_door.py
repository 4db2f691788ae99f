"""Keys, sizes, request ids and the shape of errors, for every kind of request."""

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from shared.db import make_engine, transaction
from tests.conftest import Database, PostgresServer, wait_until
from tests.services.api.conftest import Api, Tenant, Upstream, running_api

ERROR_KEYS = {"message", "type", "param", "code"}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic x", "Bearer tl-wrong"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/nowhere", "/metrics", "/admin/tenants"])
def test_without_a_valid_key_every_path_is_a_401(api: Api, header: str | None, path: str) -> None:
    headers = {"authorization": header} if header is not None else {}
    answer = api.client().get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert set(answer.json()["error"]) == ERROR_KEYS


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nowhere", 404),
        ("PUT", "/v1/models", 405),
        ("GET", "/v1/files/file-missing", 404),
        ("GET", "/v1/files?limit=0", 400),
        ("GET", "/v1/files?limit=x", 400),
        ("GET", "/v1/files?after=%00", 400),
        ("GET", "/v1/files/%00", 400),
        ("GET", "/v1/fine_tuning/jobs?limit=101", 400),
        ("GET", "/admin/tenants", 403),
        ("GET", "/metrics", 403),
    ],
)
def test_every_error_has_openais_shape_and_a_request_id(
    tenant: Tenant, method: str, path: str, status: int
) -> None:
    answer = tenant.http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == ERROR_KEYS
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_fault_of_ours_is_a_500_without_its_text(api_database: Database, tenant: Tenant) -> None:
    owner = make_engine(api_database.owner_url)
    with transaction(owner) as session:
        session.execute(text("ALTER TABLE files RENAME COLUMN report TO report_away"))
    try:
        answer = tenant.http.get("/v1/files")
    finally:
        with transaction(owner) as session:
            session.execute(text("ALTER TABLE files RENAME COLUMN report_away TO report"))
        owner.dispose()
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "report" not in answer.text
    assert answer.headers["x-request-id"]


def test_a_request_id_is_ours_not_the_clients(tenant: Tenant) -> None:
    answers = [
        tenant.http.get("/v1/models", headers={"x-request-id": "mine"}).headers["x-request-id"]
        for _ in range(2)
    ]
    assert "mine" not in answers
    assert len(set(answers)) == 2


def test_a_large_json_body_is_a_413(api: Api, tenant: Tenant) -> None:
    body = b" " * (api.settings.json_max_bytes + 1)
    headers = {"content-type": "application/json"}
    declared = tenant.http.post("/v1/fine_tuning/jobs", content=body, headers=headers)
    streamed = tenant.http.post(
        "/v1/chat/completions", content=iter([body[:1000], body]), headers=headers
    )
    for answer in (declared, streamed):
        assert answer.status_code == 413
        assert set(answer.json()["error"]) == ERROR_KEYS


def test_a_revoked_key_stops_working_within_seconds(api: Api, tenant: Tenant) -> None:
    admin = api.admin()
    made = admin.post(f"/admin/tenants/{tenant.id}/keys").json()
    second = api.client(made["api_key"])
    assert second.get("/v1/models").status_code == 200
    assert admin.delete(f"/admin/keys/{made['id']}").json()["revoked_at"]
    wait_until(lambda: second.get("/v1/models").status_code == 401, "the key stops", seconds=5)
    assert tenant.http.get("/v1/models").status_code == 200


def test_the_admin_key_opens_no_tenant_route(api: Api) -> None:
    answer = api.admin().get("/v1/files")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "permission_denied"


def test_health_is_public_and_metrics_name_no_tenant(api: Api, tenant: Tenant) -> None:
    anyone = api.client()
    assert anyone.get("/healthz").json() == {"status": "ok"}
    ready = anyone.get("/readyz")
    assert (ready.status_code, ready.json()["parts"]["database"]) == (200, "ok")
    tenant.create_job()
    metrics = api.admin().get("/metrics")
    assert metrics.status_code == 200
    assert 'route="/v1/fine_tuning/jobs"' in metrics.text
    assert "tailor_jobs_created_total" in metrics.text
    assert tenant.id not in metrics.text


def test_methods_that_callers_make_up_are_one_in_the_metrics(api: Api) -> None:
    for method in ("PROPFIND", "MKCOL"):
        assert api.client().request(method, "/v1/models").status_code == 401
    metrics = api.admin().get("/metrics").text
    assert 'method="OTHER"' in metrics
    assert "PROPFIND" not in metrics
    assert "MKCOL" not in metrics


def test_a_hundred_requests_at_the_same_moment_are_all_answered(api: Api, tenant: Tenant) -> None:
    assert tenant.http.get("/v1/files").status_code == 200  # the key is remembered
    address = urlsplit(api.url)
    request = f"GET /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant.key}\r\n\r\n"
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(socket.create_connection((address.hostname, address.port), 30))
            for _ in range(100)
        ]
        for connection in crowd:
            connection.sendall(request.encode())
        answers = [connection.recv(4096).split(b"\r\n")[0] for connection in crowd]
    assert answers == [b"HTTP/1.1 200 OK"] * 100


def test_an_absent_database_is_a_503_and_its_return_heals(
    postgres: PostgresServer, database: Database, upstream: Upstream
) -> None:
    with running_api(database, upstream.url, key_cache_seconds=0.01) as api:
        tenant = api.new_tenant()
        name = make_url(database.api_url).database
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608  our own random name
        )
        answer = tenant.http.get("/v1/files")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "database_unavailable"
        assert answer.headers["retry-after"]
        assert api.client().get("/healthz").status_code == 200
        assert api.client().get("/readyz").status_code == 503
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert tenant.http.get("/v1/files").status_code == 200


def test_tenants_and_keys_are_managed_by_the_administrator(api: Api) -> None:
    admin = api.admin()
    made = admin.post("/admin/tenants", json={"name": "株式会社テスト"})
    assert made.status_code == 201
    tenant = made.json()
    again = admin.post("/admin/tenants", json={"name": "株式会社テスト"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "name_taken")
    assert admin.post("/admin/tenants", json={"name": "  "}).status_code == 400
    assert admin.post("/admin/tenants/org-none/keys").status_code == 404
    listed = admin.get("/admin/tenants", params={"limit": 1}).json()["data"]
    assert listed[0]["name"] == "株式会社テスト"
    keys = admin.get(f"/admin/tenants/{tenant['id']}/keys").json()["data"]
    assert [key["id"] for key in keys] == [tenant["api_key_id"]]
    assert keys[0]["hint"] == tenant["api_key"][-4:]
    assert "api_key" not in keys[0]


def test_unread_bodies_do_not_cost_the_client_its_answer(api: Api) -> None:
    big = b"x" * (8 * 2**20)
    with httpx.Client(base_url=api.url) as client:
        for _ in range(3):
            assert client.post("/v1/files", content=big).status_code == 401
