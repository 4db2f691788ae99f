"""One workshop per test: its own database, broker, store and inference stand-in."""

import pytest

from tests.services.worker.inference_server import InferenceServer
from tests.services.worker.workshop import Workshop


@pytest.fixture
def inference():
    server = InferenceServer()
    yield server
    server.close()


@pytest.fixture
def workshop(tmp_path, database, broker, inference):
    workshop = Workshop(tmp_path, database.system_url, broker.url, inference)
    yield workshop
    workshop.close()
