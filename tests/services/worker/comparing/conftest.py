"""A model that follows a script."""

import pytest

from tests.services.worker.comparing.model_server import ModelServer


@pytest.fixture
def model():
    server = ModelServer()
    yield server
    server.close()
