"""A repeated request makes one job, also when its tries overlap."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from shared.db import transaction
from shared.files.models import StoredFile
from tests.conftest import wait_until
from tests.services.api.conftest import BASE, Api, Tenant, training_rows


def test_a_repeated_idempotency_key_returns_the_first_job(tenant: Tenant) -> None:
    asked = {"model": BASE, "training_file": tenant.upload(training_rows(12))}
    headers = {"idempotency-key": "注文-1".encode().hex()}

    def create(_: int) -> str:
        answer = tenant.http.post("/v1/fine_tuning/jobs", json=asked, headers=headers)
        return str(answer.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(create, range(8)))
    assert len(ids) == 1
    changed = tenant.http.post(
        "/v1/fine_tuning/jobs", json=asked | {"suffix": "b"}, headers=headers
    )
    assert changed.status_code == 409
    assert changed.json()["error"]["code"] == "idempotency_key_reused"
    assert changed.headers["x-should-retry"] == "false"


def test_a_retry_of_the_official_client_does_not_make_a_second_job(tenant: Tenant) -> None:
    asked = {"model": BASE, "training_file": tenant.upload(training_rows(12))}

    def create(count: int) -> str:
        headers = {"x-stainless-retry-count": str(count)}
        answer = tenant.http.post("/v1/fine_tuning/jobs", json=asked, headers=headers)
        return str(answer.json()["id"])

    first = create(0)
    assert create(1) == first
    assert create(0) != first


def test_a_retry_that_overlaps_its_first_try_does_not_make_a_second_job(
    api: Api, tenant: Tenant
) -> None:
    asked = {"model": BASE, "training_file": tenant.upload(training_rows(12))}

    def create(count: int) -> str:
        headers = {"x-stainless-retry-count": str(count)}
        answer = tenant.http.post("/v1/fine_tuning/jobs", json=asked, headers=headers)
        return str(answer.json()["id"])

    with ThreadPoolExecutor(2) as pool:
        with transaction(api.system) as session:
            # Holds the first try up before it is committed.
            session.get_one(StoredFile, asked["training_file"], with_for_update=True)
            first = pool.submit(create, 0)
            wait_until(lambda: waiting_for_locks(api) == 1, "the first try waits")
            retry = pool.submit(create, 1)
            wait_until(lambda: waiting_for_locks(api) == 2, "the retry waits")
        assert first.result() == retry.result()


def waiting_for_locks(api: Api) -> int:
    """Count the connections that wait for a lock in the API's database."""
    query = (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND datname = current_database()"
    )
    with transaction(api.system) as session:
        return int(session.execute(text(query)).scalar_one())
