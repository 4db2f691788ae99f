"""A model that follows a script."""

import pytest

from services.worker.comparing import asking
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


@pytest.fixture
def quick(monkeypatch):
    """Ask again at once, and keep every answer as it comes."""
    monkeypatch.setattr(asking, "PAUSES_SECONDS", (0.01,))
    monkeypatch.setattr(asking, "SAVE_SECONDS", 0)
