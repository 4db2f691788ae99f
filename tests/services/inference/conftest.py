"""What the tests of the inference service's parts share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, as uvicorn does."""
    return "asyncio"
