"""Jobs as they change: server-sent events of one tenant's job, and places in the queue."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from services.api.jobs import live
from shared.db import transaction
from shared.jobs.models import FineTuningJob
from shared.jobs.state import State
from shared.jobs.transitions import move, record
from tests.services.api.conftest import Api, Tenant

Event = tuple[str, dict[str, Any], str]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.02)


@contextmanager
def stream(
    tenant: Tenant, job_id: str, headers: dict[str, str] | None = None, **parameters: str
) -> Iterator[Iterator[Event]]:
    url = f"/v1/fine_tuning/jobs/{job_id}/live"
    with tenant.http.stream("GET", url, params=parameters, headers=headers, timeout=10) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer)


def _events(answer: httpx.Response) -> Iterator[Event]:
    kind = id_ = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "id":
            id_ = value
        elif name == "data":
            yield kind, json.loads(value), id_
            kind = id_ = ""


def next_of(events: Iterator[Event], kind: str) -> dict[str, Any]:
    return next(data for found, data, _ in events if found == kind)


def tell(api: Api, job_id: str, message: str) -> None:
    with transaction(api.system) as session:
        job = session.get_one(FineTuningJob, job_id)
        record(session, job, message, type="metrics", data={"step": 3, "train_loss": 0.5})


def end(api: Api, job_id: str) -> None:
    with transaction(api.system) as session:
        move(session, job_id, State.CANCELLED, "The job has been cancelled")


def test_a_stream_has_the_job_what_happens_to_it_and_an_end(api: Api, tenant: Tenant) -> None:
    job = tenant.create_job()
    with stream(tenant, job["id"]) as events:
        kind, shown, _ = next(events)
        assert (kind, shown["id"], shown["status"]) == ("job", job["id"], "validating_files")
        api.validated(job["id"])
        assert next_of(events, "event")["message"].startswith("Files validated")
        assert next_of(events, "job")["status"] == "queued"
        tell(api, job["id"], "学習 step 3")
        told = next_of(events, "event")
        assert (told["message"], told["data"]["train_loss"]) == ("学習 step 3", 0.5)
        end(api, job["id"])
        *_, last = events
        assert last == ("end", {}, "")


def test_who_comes_back_misses_nothing_and_hears_nothing_twice(api: Api, tenant: Tenant) -> None:
    job = tenant.create_job()
    with stream(tenant, job["id"]) as events:
        next(events)
        api.validated(job["id"])
        id_ = next(id_ for kind, _, id_ in events if kind == "event")
    for n in range(3):
        tell(api, job["id"], f"step {n}")
    end(api, job["id"])
    for came_back in ({"headers": {"last-event-id": id_}}, {"after": id_}):
        with stream(tenant, job["id"], **came_back) as events:
            told = [data["message"] for kind, data, _ in events if kind == "event"]
        assert told == ["step 0", "step 1", "step 2", "The job has been cancelled"]


def test_two_streams_of_one_job_tell_the_same(api: Api, tenant: Tenant) -> None:
    job = tenant.create_job()
    with stream(tenant, job["id"]) as one, stream(tenant, job["id"]) as two:
        assert next(one) == next(two)
        end(api, job["id"])
        assert list(one) == list(two)


def test_a_streams_time_is_limited_so_that_its_key_is_looked_at_again(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STREAM_SECONDS", 0.05)
    monkeypatch.setattr(live, "ALIVE_SECONDS", 0.02)
    with stream(tenant, tenant.create_job()["id"]) as events:
        assert [kind for kind, _, _ in events] == ["job"]


def test_one_tenant_cannot_have_all_streams(
    api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_OF_A_TENANT", 1)
    job, other = tenant.create_job(), api.new_tenant()
    with stream(tenant, job["id"]) as events:
        next(events)
        refused = tenant.http.get(f"/v1/fine_tuning/jobs/{job['id']}/live")
        assert refused.status_code == 429
        with stream(other, other.create_job()["id"]) as others:
            next(others)


def test_a_strangers_job_is_no_job(api: Api, tenant: Tenant) -> None:
    answer = api.new_tenant().http.get(f"/v1/fine_tuning/jobs/{tenant.create_job()['id']}/live")
    assert answer.status_code == 404


def test_queued_jobs_say_their_place_and_others_none(api: Api, tenant: Tenant) -> None:
    waiting = tenant.create_job()
    assert waiting["queue_position"] is None
    api.validated(waiting["id"])
    shown = tenant.http.get(f"/v1/fine_tuning/jobs/{waiting['id']}").json()
    assert shown["queue_position"] >= 1
    end(api, waiting["id"])
    shown = tenant.http.get(f"/v1/fine_tuning/jobs/{waiting['id']}").json()
    assert shown["queue_position"] is None
