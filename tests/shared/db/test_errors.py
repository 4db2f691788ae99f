"""The text of a database error, which is logged, holds nothing of what was to be written."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.db import make_engine, transaction


def test_an_error_names_the_statement_and_not_its_parameters(database):
    engine = make_engine(database.system_url)
    with pytest.raises(DBAPIError) as raised, transaction(engine) as session:
        session.execute(text("SELECT 1 FROM nowhere WHERE x = :row"), {"row": "秘密"})
    engine.dispose()
    assert "nowhere" in str(raised.value)
    assert "秘密" not in str(raised.value)
