"""Requests made from the API's document by two tenants: no fault, nothing of the other's.

The long version is `make proof`; docs/proof.md has its figures.
"""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Broker, PostgresServer
from tests.services.api.conftest import Upstream, running_api
from tests.services.api.fuzzing import Storm, administrator, answered, company

LIMITS: dict[str, Any] = {
    "limit_requests_per_minute": 10**6,
    "limit_tokens_per_minute": 10**9,
    "limit_queued_jobs": 10**5,
    "file_checks": 2,
}


@pytest.fixture
def storm(postgres: PostgresServer, upstream: Upstream, session_broker: Broker) -> Iterator[Storm]:
    """Two tenants before an API on real parts, with a scripted inference service."""
    upstream.script = answered
    with (
        postgres.fresh_database() as database,
        running_api(database, upstream.url, session_broker.url, **LIMITS) as api,
    ):
        yield Storm(api, (company(api, "azalea"), company(api, "quokka")), administrator(api))


def test_no_answer_is_a_fault_is_undocumented_or_holds_anything_of_the_other_tenants(
    storm: Storm,
) -> None:
    storm.blow(examples=8, start=1)
    assert storm.findings == {}
    assert storm.leaks() == []
    assert storm.statuses.total() > 250


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_five_thousand_requests_find_nothing(storm: Storm) -> None:
    start = secrets.randbelow(2**32)
    print(f"seed {start}")
    storm.blow(examples=160, start=start)
    print(f"{storm.statuses.total()} requests, answers by status: {dict(storm.statuses)}")
    assert storm.findings == {}
    assert storm.leaks() == []
    assert storm.statuses.total() >= 5000
