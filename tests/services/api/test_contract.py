"""The API's document: whole, true, and the same as docs/api.md."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from services.api.app import create_app
from services.api.contract import WITH_KEY
from tests.services.api.conftest import Api, Tenant, Upstream, training_rows
from tests.services.api.fuzzing import answered

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/api.md").read_text()
ROW = re.compile(r"^\| `([A-Z]+) (/\S*)` \|(.*)\|(.*)\|$", re.MULTILINE)
ELSEWHERE = {"405"}
"""Of a URL, not of a route: the document cannot say it."""
Operations = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.client().get("/openapi.json").json()
    return found


@pytest.fixture
def operations(document: dict[str, Any]) -> Operations:
    return {
        (method.upper(), path): described
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    }


def failures(described: dict[str, Any]) -> set[str]:
    return {status for status in described["responses"] if status >= "400"}


def examples(document: dict[str, Any], operations: Operations) -> Iterator[tuple[str, str, Any]]:
    """Yield method, path and example of every operation with a JSON body."""
    for (method, path), described in operations.items():
        content = described.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
            for example in document["components"]["schemas"][name]["examples"]:
                yield method, path, example


def test_every_route_is_in_the_document(api: Api, operations: Operations) -> None:
    routes = {
        (method, route.path_format)
        for route in create_app(api.settings).routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods - {"HEAD"}
    }
    assert operations.keys() == routes


def test_every_failure_of_every_route_has_openais_shape(operations: Operations) -> None:
    for operation, described in operations.items():
        for status in failures(described):
            schema = described["responses"][status]["content"]["application/json"]["schema"]
            assert "#/components/schemas/ErrorOut" in str(schema), (operation, status)
        assert "422" not in described["responses"]


def test_all_but_health_needs_a_key(operations: Operations) -> None:
    open_to_all = {path for (_, path), found in operations.items() if "security" not in found}
    assert open_to_all == {"/healthz", "/readyz"}
    for (_, path), described in operations.items():
        assert (path in open_to_all) == ("401" not in described["responses"])


def test_there_is_no_page_that_would_load_scripts_from_elsewhere(tenant: Tenant) -> None:
    for path in ("/docs", "/redoc"):
        assert tenant.http.get(path).status_code == 404


def test_every_example_is_accepted(
    api: Api, tenant: Tenant, upstream: Upstream, document: dict[str, Any], operations: Operations
) -> None:
    upstream.script = answered
    file = tenant.upload(training_rows(12))
    found = list(examples(document, operations))
    for method, path, example in found:
        if "training_file" in example:
            example["training_file"] = file
        caller = api.admin() if path.startswith("/admin") else tenant.http
        answer = caller.request(method, path.format(tenant_id=tenant.id), json=example)
        assert answer.is_success, (path, answer.text)
        assert str(answer.status_code) in operations[method, path]["responses"]
    assert len(found) == 8


def test_the_page_has_the_routes_with_their_parameters_and_errors(operations: Operations) -> None:
    common = {str(status) for status in WITH_KEY}
    shown = {
        (method, path): (sorted(re.findall(r"`([^`]+)`", names)), set(re.findall(r"\d+", statuses)))
        for method, path, names, statuses in ROW.findall(PAGE)
    }
    assert shown == {
        operation: (
            sorted(p["name"] for p in described.get("parameters", []) if p["in"] != "path"),
            failures(described) - common,
        )
        for operation, described in operations.items()
    }


def test_the_pages_table_of_errors_has_every_status(operations: Operations) -> None:
    section = PAGE.split("## Errors")[1].split("\n## ")[0]
    told = set(re.findall(r"^\| (\d{3}) \|", section, re.MULTILINE))
    assert told == set.union(*map(failures, operations.values())) | ELSEWHERE


def test_every_name_on_the_page_is_in_the_source() -> None:
    names = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE))
    files = [*ROOT.glob("services/**/*.py"), *ROOT.glob("shared/**/*.py")]
    source = "".join(path.read_text() for path in files)
    assert len(names) > 30
    assert {name for name in names if not re.search(rf"\b{name}\b", source)} == set()
