"""Who is registered, who counts as serving, and who may load what."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from shared.catalog import load_catalog
from shared.clock import now
from shared.db import make_engine, transaction
from shared.db.tables import Adapter, Tenant
from shared.ids import new_id
from shared.replicas import registry
from shared.replicas.directory import Directory, NobodyServes
from shared.replicas.models import InferenceReplica
from shared.replicas.registry import NotRegistered
from tests.replicas import BASE, add_replica, serves

URL = "http://127.0.0.1:8001"


@pytest.fixture
def system(database):
    engine = make_engine(database.system_url)
    yield engine
    engine.dispose()


@pytest.fixture
def inference(database):
    """As an inference process connects."""
    engine = make_engine(database.inference_url)
    yield engine
    engine.dispose()


def add_adapter(engine, **columns):
    adapter_id, tenant_id = new_id("ad_"), new_id("org-")
    with transaction(engine) as session:
        session.add(Tenant(id=tenant_id, name=new_id("会社-")))
        session.flush()
        session.add(
            Adapter(
                id=adapter_id,
                tenant_id=tenant_id,
                kind="final",
                model=new_id("ft:"),
                step=1,
                base_model=BASE,
                base_sha256="0" * 64,
                metrics={},
                **columns,
            )
        )
    return adapter_id


def test_a_process_that_starts_takes_over_the_registration_of_its_address(inference):
    with transaction(inference) as session:
        first = registry.register(session, serves(URL), ready=True)
        second = registry.register(session, serves(URL), ready=False)
        assert not registry.beat(session, first, ready=True)
        assert registry.beat(session, second, ready=True)
        assert list(registry.urls(session)) == [URL]


def test_one_that_gives_a_sign_of_life_meanwhile_is_not_given_up_on(inference, system):
    with transaction(inference) as session:
        replica_id = registry.register(session, serves(URL), ready=True)
    with transaction(system) as session:
        (seen,) = registry.beats(session)
        assert registry.beat(session, replica_id, ready=True)
        assert not registry.expire(session, seen)
        (seen,) = registry.beats(session)
        assert registry.expire(session, seen)
        assert registry.beats(session) == []


def test_what_is_deleted_may_not_be_loaded_and_what_has_no_row_yet_may(inference, system):
    kept, deleted = add_adapter(system), add_adapter(system, deleted_at=now())
    with transaction(inference) as session:
        registry.register(session, serves(URL), ready=True)
        allowed = [registry.may_load(session, URL, each) for each in (kept, deleted, new_id("ad_"))]
    assert allowed == [True, False, True]


def test_who_is_not_registered_may_load_nothing(inference, system):
    adapter = add_adapter(system)
    with transaction(inference) as session, pytest.raises(NotRegistered):
        registry.may_load(session, URL, adapter)


def test_the_silent_and_those_that_start_come_after_those_that_answer(system):
    starting, silent, answering = (f"http://{n}" for n in range(3))
    for url in (starting, silent, answering):
        add_replica(system, url)
    with transaction(system) as session:
        for url, changes in (
            (starting, {"ready": False}),
            (silent, {"beat_at": now() - timedelta(seconds=registry.SILENT_SECONDS + 1)}),
        ):
            row = update(InferenceReplica).where(InferenceReplica.url == url)
            session.execute(row.values(**changes))
        found = registry.served(session, load_catalog())[BASE]
    assert [each.url for each in found.answering] == [answering]
    assert {each.url for each in found.silent} == {starting, silent}


@pytest.mark.parametrize("said", [{"base_sha256": "1" * 64}, {"profile_sha256": "1" * 64}])
def test_who_serves_something_else_than_is_described_does_not_count(system, said):
    add_replica(system, URL, **said)
    directory = Directory(system, load_catalog())
    assert directory.bases() == []
    with pytest.raises(NobodyServes), directory.turn(BASE, None):
        pass


def test_a_base_that_this_installation_does_not_know_does_not_count(system):
    with transaction(system) as session:
        registry.register(session, replace(serves(URL), base_model="elsewhere"), ready=True)
        assert registry.served(session, load_catalog()) == {}


def test_whoever_did_not_answer_is_not_asked_in_the_next_turn(system):
    for number in range(2):
        add_replica(system, f"http://{number}")
    directory = Directory(system, load_catalog())
    with pytest.raises(ZeroDivisionError), directory.turn(BASE, "ad_1") as first:
        1 / 0  # noqa: B018
    with directory.turn(BASE, "ad_1") as second:
        assert second != first


def test_what_was_last_read_serves_while_the_database_is_away(database):
    engine = make_engine(database.system_url)
    add_replica(engine, URL)
    times = iter(range(0, 100, 10))
    directory = Directory(engine, load_catalog(), clock=lambda: float(next(times)))
    assert directory.bases() == [BASE]
    engine.dispose()
    unreachable = make_engine("postgresql+psycopg://x:x@127.0.0.1:9/x")
    directory._engine = unreachable
    with directory.turn(BASE, None) as url:
        assert url == URL
