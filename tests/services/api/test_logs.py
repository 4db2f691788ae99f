"""What the API logs: each line with a stable name, who called from where, and never their data."""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from services.api.admin.action_log import log_action
from shared.db import transaction
from shared.telemetry import JsonFormatter, log_event
from tests.conftest import Database, wait_until
from tests.services.api.conftest import BASE, Api, Tenant, Upstream, running_api


class Lines(logging.Handler):
    """Keeps the lines as they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter("api"))
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What the API logs during a test."""
    logger = logging.getLogger("services.api")
    handler, level = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.found
    logger.removeHandler(handler)
    logger.setLevel(level)


def logged(lines: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """Wait for the line that has these values."""

    def matching() -> list[dict[str, Any]]:
        return [line for line in lines if wanted.items() <= line.items()]

    wait_until(matching, f"a line with {wanted}")
    return matching()[0]


def test_a_requests_line_says_who_it_was(tenant: Tenant, lines: list[dict[str, Any]]) -> None:
    answer = tenant.http.get("/v1/models")
    line = logged(lines, event="request", tenant_id=tenant.id)
    assert (line["client"], line["route"]) == ("127.0.0.1", "/v1/models")
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["key_id"].startswith("key_")
    assert tenant.key not in json.dumps(line)


@pytest.mark.parametrize(
    ("header", "why"),
    [(None, "No API key"), ("Basic x", "No API key"), ("Bearer tl-wrong", "not valid")],
)
@pytest.mark.parametrize(
    ("path", "route"),
    [("/v1/models", "/v1/models"), ("/v1/files/file-9", "/v1/files/{file_id}")],
)
def test_a_wrong_keys_line_names_the_route_and_why(  # noqa: PLR0917  parametrised
    api: Api,
    lines: list[dict[str, Any]],
    header: str | None,
    why: str,
    path: str,
    route: str,
) -> None:
    headers = {"authorization": header} if header else {}
    api.client().get(path, headers=headers)
    line = logged(lines, event="request", status=401)
    assert (line["route"], line["client"]) == (route, "127.0.0.1")
    assert why in line["refused"]
    assert "tl-wrong" not in json.dumps(line)
    assert "file-9" not in json.dumps(line)


@pytest.mark.parametrize(
    ("trusted", "client"),
    [([], "127.0.0.1"), (["10.0.0.0/8"], "127.0.0.1"), (["127.0.0.0/8"], "203.0.113.9")],
)
def test_only_a_trusted_proxy_says_who_the_client_is(
    *,
    api_database: Database,
    upstream: Upstream,
    lines: list[dict[str, Any]],
    trusted: list[str],
    client: str,
) -> None:
    # What the client itself has sent stands before what the proxy adds.
    forwarded = {"x-forwarded-for": "198.51.100.1, 203.0.113.9"}
    with running_api(api_database, upstream.url, trusted_proxies=trusted) as api:
        api.client().get("/v1/models", headers=forwarded)
    assert logged(lines, event="request", status=401)["client"] == client


def test_the_administrators_actions_name_their_objects(
    api: Api, lines: list[dict[str, Any]]
) -> None:
    tenant, admin = api.new_tenant(), api.admin()
    made = admin.post(f"/admin/tenants/{tenant.id}/keys").json()
    admin.delete(f"/admin/keys/{made['id']}")
    admin.put(f"/admin/tenants/{tenant.id}/limits", json={"queued_jobs": 3})
    for event in ("admin_key_created", "admin_key_revoked"):
        assert logged(lines, event=event, key_id=made["id"])["tenant_id"] == tenant.id
    assert logged(lines, event="admin_tenant_created", tenant_id=tenant.id)
    line = logged(lines, event="admin_limits_changed", tenant_id=tenant.id)
    assert line["own_limits"] == {"queued_jobs": 3}
    request = logged(lines, event="request", request_id=line["request_id"])
    assert (request["key_id"], line["client"]) == (line["admin_key_id"], "127.0.0.1")
    assert made["api_key"] not in json.dumps(lines)


def test_what_is_not_committed_was_not_done(api: Api, lines: list[dict[str, Any]]) -> None:
    with suppress(ZeroDivisionError), transaction(api.system) as session:
        log_action(session, "lost", log_event("lost"))
        raise ZeroDivisionError
    with transaction(api.system) as session:
        log_action(session, "kept", log_event("kept"))
        assert lines == []
    assert [line["event"] for line in lines] == ["kept"]


def test_no_line_holds_a_row_a_prompt_or_a_key(
    api: Api, tenant: Tenant, upstream: Upstream, lines: list[dict[str, Any]]
) -> None:
    secret = "鍵の番号は4711"
    upstream.script = lambda exchange: exchange.send_json(500, {"message": secret})
    row = {"messages": [{"role": "user", "content": secret}]}
    tenant.http.post(
        "/v1/files",
        files={"file": (f"{secret}.jsonl", json.dumps(row, ensure_ascii=False))},
        data={"purpose": "fine-tune"},
    )
    for body in ({"model": BASE, **row}, {"model": secret, **row}, {"model": BASE, secret: secret}):
        tenant.http.post("/v1/chat/completions", json=body)
    tenant.http.get(f"/v1/fine_tuning/jobs?metadata[{secret}]={secret}")
    tenant.http.get(f"/v1/files/{secret}")
    assert logged(lines, event="request", route="/v1/files/{file_id}")
    text = json.dumps(lines, ensure_ascii=False)
    assert not [word for word in (secret, tenant.key, api.admin_key) if word in text]
