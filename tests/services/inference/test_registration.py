"""A process's own registration: kept alive, given up, begun anew; and what it may load."""

from contextlib import closing

import pytest
from pydantic import SecretStr

from services.inference.registration import LoadPermission, Registration
from shared.db import make_engine, transaction
from shared.ids import new_id
from shared.replicas import registry
from tests.conftest import wait_until
from tests.replicas import BASE, serves

URL = "http://127.0.0.1:8001"


@pytest.fixture
def system(database):
    engine = make_engine(database.system_url)
    yield engine
    engine.dispose()


@pytest.fixture
def registration(database):
    registration = Registration(SecretStr(database.inference_url), serves(URL), 0.02)
    registration.start()
    yield registration
    registration.stop()


def beats(system):
    with transaction(system) as session:
        return registry.beats(session)


def answering(system):
    with transaction(system) as session:
        return [row.base_model for row, answers in registry.standing(session) if answers]


def test_it_is_known_at_once_and_answers_when_it_is_told_so(system, registration):
    wait_until(lambda: beats(system), "it is registered")
    assert answering(system) == []
    registration.tell(ready=True)
    wait_until(lambda: answering(system) == [BASE], "it answers")
    registration.tell(ready=False)
    wait_until(lambda: answering(system) == [], "it does not")


def test_it_gives_signs_of_life_until_it_is_stopped_and_stays_known(system, registration):
    wait_until(lambda: beats(system), "it is registered")
    (seen,) = beats(system)
    wait_until(lambda: beats(system)[0].beats > seen.beats + 2, "it goes on")
    registration.stop()
    (last,) = beats(system)
    assert last.id == seen.id


def test_whoever_was_given_up_on_learns_of_it_and_begins_anew_when_told(system, registration):
    wait_until(lambda: beats(system), "it is registered")

    def gave_up():
        with transaction(system) as session:
            return any(registry.expire(session, seen) for seen in registry.beats(session))

    wait_until(gave_up, "it is given up on")
    assert registration.lost.wait(5)
    assert beats(system) == []
    registration.begin_anew()
    wait_until(lambda: beats(system), "it is registered again")
    assert not registration.lost.is_set()


def test_it_asks_as_its_own_role_whether_it_may_load(database, registration, system):
    wait_until(lambda: beats(system), "it is registered")
    secret = SecretStr(database.inference_url)
    with closing(LoadPermission(secret, URL)) as ask:
        assert ask(new_id("ad_"))
    with (
        closing(LoadPermission(secret, "http://elsewhere")) as ask,
        pytest.raises(registry.NotRegistered),
    ):
        ask(new_id("ad_"))
