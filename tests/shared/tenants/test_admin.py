"""The administrator's key is the one of the environment, also when it is an earlier one again."""

import pytest

from shared.db import make_engine, transaction
from shared.tenants.admin import install_admin_key
from shared.tenants.keys import find_key, new_secret


@pytest.fixture
def system(database):
    engine = make_engine(database.system_url)
    yield engine
    engine.dispose()


def works(engine, secret):
    with transaction(engine) as session:
        return find_key(session, secret) is not None


def test_another_key_revokes_the_earlier_one_and_the_way_back_is_open(system):
    first, second = (new_secret(admin=True) for _ in range(2))
    seen = []
    for secret in (first, first, second, first):
        install_admin_key(system, secret)
        seen.append((works(system, first), works(system, second)))
    assert seen == [(True, False), (True, False), (False, True), (True, False)]
