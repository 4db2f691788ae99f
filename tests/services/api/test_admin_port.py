"""With a port of their own, /admin and /metrics are on that port, and nothing else is."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from pydantic import ValidationError

from tests.conftest import Database
from tests.services.api.conftest import ADMIN_KEY, Api, running_api

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}


@dataclass
class Ports:
    """Clients of both ports, without a key, and a tenant's header."""

    public: httpx.Client
    admin: httpx.Client
    tenant: dict[str, str]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def ports(api_database: Database) -> Iterator[Ports]:
    port = free_port()
    with (
        running_api(api_database, "http://127.0.0.1:9", api_port=0, admin_port=port) as api,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as admin,
        httpx.Client(base_url=api.url) as public,
    ):
        made = admin.post("/admin/tenants", json={"name": f"of {port}"}, headers=ADMIN).json()
        yield Ports(public, admin, {"authorization": f"Bearer {made['api_key']}"})


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/admin", "/admin/tenants", "/admin/keys/key_x", "//admin//tenants/", "/metrics/"],
)
@pytest.mark.parametrize("who", ["nobody", "a tenant", "the administrator"])
def test_the_public_port_knows_nothing_of_the_administrators_urls(
    ports: Ports, path: str, who: str
) -> None:
    key = {"nobody": {}, "a tenant": ports.tenant, "the administrator": ADMIN}[who]
    host = {"host": ports.admin.base_url.netloc.decode()}
    answer = ports.public.get(str(ports.public.base_url).rstrip("/") + path, headers=key | host)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    assert answer.headers["x-request-id"]


def test_the_admin_port_answers_the_administrator_alone(ports: Ports) -> None:
    assert ports.admin.get("/metrics", headers=ADMIN).status_code == 200
    assert ports.admin.get("/admin/tenants", headers=ADMIN).status_code == 200
    assert ports.admin.get("/metrics").status_code == 401
    assert ports.admin.get("/admin/tenants", headers=ports.tenant).status_code == 403


@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", "/healthz", "/openapi.json", "/x"])
def test_nothing_else_is_on_the_admin_port(ports: Ports, path: str) -> None:
    for headers in ({}, ports.tenant, ADMIN):
        assert ports.admin.get(path, headers=headers).status_code == 404


def test_the_public_port_answers_and_describes_the_rest(ports: Ports) -> None:
    assert ports.public.get("/healthz").status_code == 200
    assert ports.public.get("/v1/models", headers=ports.tenant).status_code == 200
    paths = ports.public.get("/openapi.json").json()["paths"]
    assert "/v1/models" in paths
    assert [path for path in paths if path.startswith(("/admin", "/metrics"))] == []


def test_the_two_ports_differ(api: Api) -> None:
    with pytest.raises(ValidationError, match="another port"):
        type(api.settings).model_validate({**dict(api.settings), "admin_port": 8000})
