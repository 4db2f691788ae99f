"""A model that follows a script."""

import pytest

from tests.services.worker.comparing.model_server import ModelServer
from tests.services.worker.comparing.workshop import Workshop


@pytest.fixture
def model():
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture
def workshop(tmp_path, database, model):
    workshop = Workshop(tmp_path, database.system_url, model)
    yield workshop
    workshop.close()
