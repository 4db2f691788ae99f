"""What a tenant may use: refused in OpenAI's shape, and never for want of Redis."""

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import openai
import pytest

from services.api.rate_limits import PATIENCE_SECONDS, RateLimits
from shared.tenants.limits import Limits
from tests.conftest import Broker, Database, wait_until
from tests.services.api.conftest import BASE, Api, Tenant, Upstream, running_api, training_rows
from tests.services.api.test_completions import ASK, USAGE, streamed_answer, whole_answer


@pytest.fixture
def company(metered: Api, upstream: Upstream) -> Tenant:
    upstream.script = whole_answer
    return metered.new_tenant()


def limit(api: Api, tenant: Tenant, **own: int) -> None:
    """Give a tenant limits of its own, and wait until its key is looked up again."""
    api.admin().put(f"/admin/tenants/{tenant.id}/limits", json=own).raise_for_status()
    time.sleep(2 * api.settings.key_cache_seconds)  # the setting is this promise


def ask(tenant: Tenant, **more: Any) -> Any:
    body = {"model": BASE, "messages": ASK, **more}
    return tenant.http.post("/v1/chat/completions", json=body)


def counted(metered: Api, company: Tenant) -> None:
    """Wait until the library is loaded: before that nothing is counted."""
    wait_until(lambda: "x-ratelimit-limit-requests" in ask(company).headers, "requests count")


def test_every_answer_says_what_is_left(metered: Api, company: Tenant) -> None:
    counted(metered, company)
    left = int(ask(company).headers["x-ratelimit-remaining-requests"])
    answer = ask(company, stream=False)
    assert int(answer.headers["x-ratelimit-remaining-requests"]) == left - 1
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000000"
    assert answer.headers["x-ratelimit-reset-requests"].endswith("s")


def test_one_request_too_many_is_a_429_that_says_when_to_come_again(
    metered: Api, company: Tenant
) -> None:
    counted(metered, company)
    limit(metered, company, requests_per_minute=2)
    assert [ask(company).status_code for _ in range(4)] == [200, 200, 429, 429]
    answer = ask(company)
    error = answer.json()["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert "2 requests a minute" in error["message"]
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError):
        company.openai.chat.completions.create(model=BASE, messages=ASK)


def test_another_tenant_has_counters_of_its_own(metered: Api, company: Tenant) -> None:
    counted(metered, company)
    limit(metered, company, requests_per_minute=0)
    assert ask(company).status_code == 429
    assert ask(metered.new_tenant()).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_counted_when_an_answer_has_ended(
    metered: Api, company: Tenant, upstream: Upstream, stream: bool
) -> None:
    counted(metered, company)
    limit(metered, company, tokens_per_minute=USAGE["total_tokens"])
    if stream:
        upstream.script = streamed_answer
    assert ask(company, stream=stream).status_code == 200
    wait_until(lambda: ask(company).status_code == 429, "the tokens are spent", seconds=5)
    assert "tokens a minute" in ask(company).json()["error"]["message"]


def test_too_many_requests_at_a_time_are_refused_and_the_places_come_back(
    metered: Api, company: Tenant, upstream: Upstream
) -> None:
    counted(metered, company)
    limit(metered, company, concurrent_requests=2)
    go_on = threading.Event()

    def slowly(exchange: Any) -> None:
        go_on.wait(20)
        whole_answer(exchange)

    upstream.script = slowly
    upstream.seen.clear()
    found: list[int] = []
    callers = [
        threading.Thread(target=lambda: found.append(ask(company).status_code)) for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    wait_until(lambda: len(upstream.seen) == 2, "both run")
    refused = ask(company)
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        429,
        "concurrent_requests_exceeded",
    )
    go_on.set()
    for caller in callers:
        caller.join()
    assert found == [200, 200]
    assert ask(company).status_code == 200


def test_a_request_that_is_refused_for_its_model_gives_its_place_back(
    metered: Api, company: Tenant
) -> None:
    limit(metered, company, concurrent_requests=1)
    assert [ask(company, model="ft:nobody").status_code for _ in range(3)] == [404] * 3
    assert ask(company).status_code == 200


def test_a_full_queue_of_jobs_is_a_429_and_a_cancelled_job_makes_room(
    metered: Api, company: Tenant
) -> None:
    limit(metered, company, queued_jobs=2)
    file = company.upload(training_rows(12))
    jobs = [company.create_job(training_file=file)["id"] for _ in range(2)]
    asked = {"model": BASE, "training_file": file}
    refused = company.http.post("/v1/fine_tuning/jobs", json=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queued_jobs_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    company.http.post(f"/v1/fine_tuning/jobs/{jobs[0]}/cancel").raise_for_status()
    assert company.create_job(training_file=file)


def test_comparisons_wait_in_a_queue_of_their_own(metered: Api, company: Tenant) -> None:
    limit(metered, company, queued_jobs=1)
    file = company.upload(training_rows(12))
    company.create_job(training_file=file)
    asked = {"model": BASE, "training_file": file}
    company.http.post("/v1/comparisons", json=asked).raise_for_status()
    refused = company.http.post("/v1/comparisons", json=asked)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "queued_comparisons_exceeded"


def test_the_room_for_files_is_bounded_and_said_before_the_body_is_read(
    metered: Api, company: Tenant
) -> None:
    limit(metered, company, stored_bytes=5_000)
    company.upload(b"x" * 4_000, purpose="assistants")
    files = {"file": ("data.jsonl", b"x" * 4_000)}
    refused = company.http.post("/v1/files", files=files, data={"purpose": "assistants"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        429,
        "storage_limit_exceeded",
    )
    assert refused.headers["x-should-retry"] == "false"


def test_a_nearly_full_disk_refuses_uploads(
    metered: Api, company: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=metered.settings.min_free_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    files = {"file": ("data.jsonl", b"x")}
    refused = company.http.post("/v1/files", files=files, data={"purpose": "assistants"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "insufficient_storage")


def test_own_limits_lie_over_the_deployments_and_can_be_taken_back(
    metered: Api, company: Tenant
) -> None:
    path = f"/admin/tenants/{company.id}/limits"
    admin = metered.admin()
    defaults = admin.get(path).json()
    assert admin.put(path, json={"queued_jobs": 3}).json() == defaults | {"queued_jobs": 3}
    assert admin.put(path, json={}).json() == defaults
    assert admin.put(path, json={"queued": 3}).status_code == 400
    assert admin.put(path, json={"queued_jobs": -1}).status_code == 400
    assert company.http.get(path).status_code == 403


def test_a_change_leaves_the_limits_that_it_does_not_name(metered: Api, company: Tenant) -> None:
    path = f"/admin/tenants/{company.id}/limits"
    admin = metered.admin()
    defaults = admin.get(path).json()
    admin.put(path, json={"queued_jobs": 3, "stored_bytes": 9})
    changed = {"queued_jobs": 3, "stored_bytes": 5}
    assert admin.patch(path, json={"stored_bytes": 5}).json() == defaults | changed
    assert admin.patch(path, json={"stored_bytes": None}).json() == defaults | {"queued_jobs": 3}
    assert admin.get(path).json() == defaults | {"queued_jobs": 3}
    assert admin.patch("/admin/tenants/org-none/limits", json={}).status_code == 404


@pytest.fixture
def silent(
    database: Database, upstream_server: Upstream, broker: Broker
) -> Iterator[tuple[Api, Broker]]:
    """An API whose Redis is about to go."""
    with running_api(database, upstream_server.url, broker.url) as running:
        yield running, broker


def test_a_redis_that_goes_away_refuses_nobody(
    silent: tuple[Api, Broker], upstream: Upstream
) -> None:
    upstream.script = whole_answer
    api, broker = silent
    company = api.new_tenant()
    counted(api, company)
    broker.process.kill()
    broker.process.wait()
    answers = [ask(company) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert "x-ratelimit-limit-requests" not in answers[-1].headers


def test_without_any_redis_requests_are_answered(api: Api, upstream: Upstream) -> None:
    upstream.script = whole_answer
    assert ask(api.new_tenant()).status_code == 200


class Silent:
    """A limiter that counts and then says nothing, and gives up just when its caller does."""

    async def hit(self, *_: object) -> bool:
        # The loop is busy while both timeouts run out.
        asyncio.get_running_loop().call_later(PATIENCE_SECONDS / 2, time.sleep, PATIENCE_SECONDS)
        return True

    async def get_window_stats(self, *_: object) -> None:
        async with asyncio.timeout(0.9 * PATIENCE_SECONDS):
            await asyncio.sleep(60)


def test_a_redis_that_falls_silent_while_it_is_asked_refuses_nobody() -> None:
    rates = RateLimits("redis+socket:///nowhere")
    rates._limiter = cast("Any", Silent())
    limits = Limits(
        requests_per_minute=9,
        tokens_per_minute=9,
        concurrent_requests=9,
        queued_jobs=9,
        stored_bytes=9,
    )
    assert asyncio.run(rates.admit("org-1", limits)).headers == {}
