"""The healthy stack's inference service, with sentinel adapters in its store."""

import pytest

from tests.running_stack import RunningStack
from tests.services.inference.server import MODELS_DIR, Inference, make_sentinels


@pytest.fixture(scope="session")
def inference(stack: RunningStack) -> Inference:
    """The inference service, asked without the gateway."""
    return Inference(stack.inference_url, stack.inference_secret, stack.store_dir, MODELS_DIR)


@pytest.fixture(scope="session")
def sentinels(inference: Inference) -> dict[str, str]:
    """Adapter ids by the one word that each has learnt (about 15 s)."""
    return make_sentinels(inference.store_dir, inference.models_dir)
