"""Tenants' answers do not mix on a real vLLM; with vLLM's own CPU operation they do."""

import asyncio
import random

import pytest

from shared.catalog import load_catalog
from tests.conftest import short_folder
from tests.services.inference.server import (
    BASE_MODEL,
    WORDS,
    Inference,
    answers,
    stock_server,
    strangers,
)

pytestmark = pytest.mark.stack


def mixture(sentinels: dict[str, str], rounds: int) -> list[str]:
    """Return every tenant's model and, as often as three tenants, the base model, shuffled."""
    models = [*sentinels.values(), *[BASE_MODEL] * 3] * rounds
    random.Random(9).shuffle(models)
    return models


def test_five_hundred_concurrent_answers_are_each_from_the_model_asked(
    inference: Inference, sentinels: dict[str, str]
) -> None:
    assert len(WORDS) > load_catalog().get(BASE_MODEL).serving.max_loras
    given = asyncio.run(answers(inference, mixture(sentinels, rounds=50), concurrency=32))
    assert len(given) == 500
    assert strangers(sentinels, given) == []


@pytest.mark.proof
def test_three_thousand_concurrent_answers_are_each_from_the_model_asked(
    inference: Inference, sentinels: dict[str, str]
) -> None:
    given = asyncio.run(answers(inference, mixture(sentinels, rounds=300), concurrency=48))
    assert len(given) == 3000
    assert strangers(sentinels, given) == []


@pytest.mark.proof
def test_with_vllms_own_operation_the_base_model_answers_as_a_tenant(
    inference: Inference, sentinels: dict[str, str]
) -> None:
    with (
        short_folder() as folder,  # vLLM's sockets lie in it
        stock_server(folder, inference.store_dir, inference.models_dir) as stock,
    ):
        # Its plugin failed to import, which vLLM only logs; so it is healthy, but never ready.
        readiness = stock.readiness()
        assert readiness["ready"] is False
        assert readiness["parts"]["resolver"] is False
        assert readiness["parts"]["cpu_lora"] is False
        given = asyncio.run(answers(stock, mixture(sentinels, rounds=6), concurrency=32))
    wrong = strangers(sentinels, given)
    assert [model for model, _ in wrong if model == BASE_MODEL]
