"""Two tenants, each with things of its own, and requests made from the API's own document.

Each tenant calls every operation with what schemathesis makes of the document, within its schemas
and beyond them, often with ids put into it: its own, and those of the other tenant. No answer may
be a fault, be missing in the document, or hold anything of the other's.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import text

from shared.db import transaction
from shared.jobs.state import State
from tests.services.api.conftest import BASE, Api, Exchange, Tenant
from tests.services.api.test_jobs import advance

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ULID = re.compile(r"[0-9A-Z]{26}")
"""In every id, and with its owner's in every model's name."""
SLOW = "upload_file"
"""A training file is read by a process of its own: a quarter of a second each."""
CHANGING = {"delete_file", "delete_model", "cancel_job"}
"""After these the caller's things are gone."""
ODD = ["\x00", "%00", "a/b", "'", "🦊", "0" * 300, "-1", "2" * 40, "null", "{id}", "*", "%", " "]
ODD += ["file-" + "0" * 26, "ftjob-" + "Z" * 26, "ftevent-" + "0" * 26, "ftckpt_x_1", "ft:x:y::z"]
HEADERS: list[dict[str, str]] = [
    {},
    {},
    {},
    {"range": "bytes=0-3"},
    {"range": "bytes=99999999999-"},
    {"range": "lines=1"},
    {"range": "bytes=3-1,-"},
    {"if-range": "x", "range": "bytes=-1"},
    {"content-encoding": "br"},
    {"content-encoding": "gzip"},
    {"accept": "text/html"},
    {"idempotency-key": "k" * 300},
    {"idempotency-key": "same"},
    {"x-stainless-retry-count": "9" * 40},
    {"x-forwarded-for": "ü"},
    {"origin": "http://localhost:3000"},
    {"content-length": "0"},
]


@dataclass
class Caller:
    """Who asks: a key, ids by the name of the parameter that takes them, and what was said."""

    key: str
    ids: dict[str, list[str]]
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Requests and answers."""


@dataclass
class Company(Caller):
    """A tenant."""

    tenant: Tenant | None = None
    canary: str = ""
    """A word that stands in all its texts."""


def company(api: Api, canary: str) -> Company:
    """Make a tenant with files, jobs, events, a checkpoint and a model, all named by its canary."""
    tenant = api.new_tenant()
    made = Company(tenant.key, {}, tenant=tenant, canary=canary)
    renew(api, made)
    return made


def renew(api: Api, who: Company) -> None:
    """Give a tenant new things: those it had may be deleted."""
    word, tenant = who.canary, who.tenant
    assert tenant is not None
    rows = [{"prompt": f"{word} asks {n}", "completion": f"{word} says {n}"} for n in range(12)]
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    training = tenant.upload(body, f"{word}.jsonl")
    other = tenant.upload(f"{word} kept".encode(), f"{word}.txt", "user_data")
    asked = {"training_file": training, "suffix": word, "metadata": {"team": word}}
    jobs = [tenant.create_job(**asked, seed=number)["id"] for number in range(2)]
    way = (State.QUEUED, State.STARTING, State.RUNNING, State.PUBLISHING, State.SUCCEEDED)
    advance(api, jobs[1], *way)
    models = [api.add_adapter(tenant, jobs[1]), api.add_adapter(tenant, jobs[1], step=4)]
    events = tenant.http.get(f"/v1/fine_tuning/jobs/{jobs[0]}/events").json()["data"]
    checkpoint = f"ftckpt_{jobs[1].removeprefix('ftjob-')}_4"
    who.ids = {
        "file_id": [training, other],
        "job_id": jobs,
        "model": [*models, BASE],
        "after": [training, *jobs, checkpoint, *(event["id"] for event in events)],
        "training_file": [training],
        "validation_file": [training],
        "tenant_id": [tenant.id],
    }


def administrator(api: Api) -> Caller:
    """Return the administrator, who works on a tenant that nobody else needs."""
    bystander = api.new_tenant()
    keys = api.admin().get(f"/admin/tenants/{bystander.id}/keys").json()["data"]
    ids = [bystander.id]
    return Caller(
        api.admin_key, {"tenant_id": ids, "key_id": [keys[0]["id"]], "after": [*ids, keys[0]["id"]]}
    )


def answered(exchange: Exchange) -> None:
    """Answer a completion as vLLM does."""
    chat, body = "chat" in exchange.path, exchange.body
    said = {"message": {"role": "assistant", "content": "yes"}} if chat else {"text": "yes"}
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    choices = [{"index": n, **said, "finish_reason": "stop"} for n in range(body.get("n", 1))]
    if not body.get("stream"):
        exchange.send_json(200, {"choices": choices, "usage": usage})
        return
    exchange.start_stream()
    exchange.send_event({"choices": [{**c, "delta": {"content": "yes"}} for c in choices]})
    exchange.send_event({"choices": [], "usage": usage})
    exchange.send_event("[DONE]")
    exchange.end_stream()


def operations(api: Api) -> Iterator[APIOperation[Any, Any, Any, Any]]:
    """Yield what the document describes."""
    document = api.client().get("/openapi.json").json()
    del document["paths"]["/v1/fine_tuning/jobs/{job_id}/live"]  # its answers last for minutes
    for path in document["paths"].values():
        for described in path.values():
            described.pop("security", None)  # or half of what is wrong would be the key
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(found, Ok), found
        yield found.ok()


@dataclass
class Storm:
    """Requests of two tenants and the administrator, with what was wrong with the answers."""

    api: Api
    companies: tuple[Company, Company]
    admin: Caller
    statuses: Counter[int] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)
    """By operation and kind; the first of each, told in full."""
    _session: requests.Session = field(default_factory=requests.Session)

    def blow(self, examples: int, start: int) -> None:
        """Call every operation so often within its schemas, and as often beyond them."""
        for operation in operations(self.api):
            name = operation.definition.raw["operationId"]
            for mode in GenerationMode:
                few = max(4, examples // 10) if name == SLOW else examples
                self._call(operation, mode, few, start)
            if name in CHANGING:
                for who in self.companies:
                    renew(self.api, who)

    def _call(
        self,
        operation: APIOperation[Any, Any, Any, Any],
        mode: GenerationMode,
        examples: int,
        start: int,
    ) -> None:
        strategy = operation.as_strategy(generation_mode=mode)
        callers: list[Caller] = [*self.companies]
        callers += [self.admin] * (6 if "administration" in (operation.tags or []) else 0)

        @seed(start)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def run(data: st.DataObject) -> None:
            case = data.draw(strategy)
            who, other = data.draw(st.sampled_from(callers)), data.draw(st.sampled_from(callers))
            self._aim(case, data, who, other)
            self._ask(case, who, data.draw(st.sampled_from(HEADERS)))

        try:
            run()
        except Unsatisfiable:
            assert mode.is_negative, operation.label  # there is nothing to get wrong in it

    def _aim(self, case: Case[Any], data: st.DataObject, who: Caller, other: Caller) -> None:
        """Put ids of the caller's, of another's or odd words into places for ids, or nothing."""
        places: list[Any] = [case.path_parameters, case.query, case.body]
        for place in places:
            known = who.ids.keys() & other.ids.keys()
            for name in sorted(known.intersection(place if isinstance(place, dict) else ())):
                own, others = who.ids[name], other.ids[name]
                pool = data.draw(st.sampled_from([None, own, own, others, others, ODD]))
                if pool is not None:
                    place[name] = data.draw(st.sampled_from(pool))

    def _ask(self, case: Case[Any], who: Caller, headers: dict[str, str]) -> None:
        sent = {**headers, "authorization": f"Bearer {who.key}"}
        answer = case.call(self.api.url, session=self._session, headers=sent, timeout=30)
        self.statuses[answer.status_code] += 1
        request = answer.request
        body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
        who.seen.append((f"{request.url} {body.decode(errors='replace')}", answer.text))
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                self.findings.setdefault(f"{case.operation.label}: {failure.title}", str(group))

    def leaks(self) -> list[tuple[str, str]]:
        """Return a tenant's requests whose answers hold something of the other's."""
        first, second = self.companies
        return self._leaks(first, second) + self._leaks(second, first)

    def _leaks(self, who: Company, other: Company) -> list[tuple[str, str]]:
        theirs = self._ulids(other)
        return [
            (request, answer)
            for request, answer in who.seen
            if theirs & (set(ULID.findall(answer)) - set(ULID.findall(request)))
            or other.key in answer
            or (other.canary in answer and other.canary not in request)
        ]

    def _ulids(self, who: Company) -> set[str]:
        tables = ("files", "fine_tuning_jobs", "job_events", "adapters", "api_keys")
        assert who.tenant is not None
        with transaction(self.api.system) as session:
            rows = [
                row
                for table in tables
                for row in session.scalars(
                    text(f"SELECT id FROM {table} WHERE tenant_id = :id"),  # noqa: S608  our names
                    {"id": who.tenant.id},
                )
            ]
        return {found for row in (who.tenant.id, *rows) for found in ULID.findall(row)}
