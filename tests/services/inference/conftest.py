"""One real inference service for the session, with its own store and sentinel adapters."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.inference.server import Inference, make_sentinels, running_server

MODELS_DIR = Path(__file__).parents[3] / ".models"


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, as uvicorn does."""
    return "asyncio"


@pytest.fixture(scope="session")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inference]:
    """A ready inference service (about 40 s)."""
    folder = tmp_path_factory.mktemp("inference")
    with running_server(folder, folder / "store", MODELS_DIR) as server:
        yield server.inference


@pytest.fixture(scope="session")
def sentinels(inference: Inference) -> dict[str, str]:
    """Adapter ids by the one word that each has learnt (about 15 s)."""
    return make_sentinels(inference.store_dir, inference.models_dir)
