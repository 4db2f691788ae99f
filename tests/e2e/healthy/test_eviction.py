"""Deleting an adapter on a real vLLM: it is refused, and its missing files harm nobody."""

import asyncio
import shutil

import pytest

from tests.services.inference.server import (
    BASE_MODEL,
    Inference,
    answers,
    copy_of,
    strangers,
)

pytestmark = pytest.mark.stack


def test_after_deletion_others_are_served_though_the_folder_is_gone(
    inference: Inference, sentinels: dict[str, str]
) -> None:
    doomed = copy_of(inference.store_dir, sentinels[" violet"])
    everybody = [*sentinels.values(), BASE_MODEL]
    asyncio.run(answers(inference, [doomed, *everybody], concurrency=8))

    with inference.client() as client:
        assert client.delete(f"/internal/adapters/{doomed}").status_code == 200
        shutil.rmtree(inference.store_dir / "adapters" / doomed)
        refused = client.post("/v1/completions", json={"model": doomed, "prompt": "x"})
    assert refused.status_code == 404

    # More tenants than slots, twice: every slot is written anew, so vLLM reads what it remembers.
    given = asyncio.run(answers(inference, everybody * 2, concurrency=8))
    assert strangers(sentinels, given) == []


def test_an_adapter_with_a_changed_file_is_never_served(
    inference: Inference, sentinels: dict[str, str]
) -> None:
    adapter = copy_of(inference.store_dir, sentinels[" copper"])
    weights = inference.store_dir / "adapters" / adapter / "adapter_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with inference.client() as client:
        answer = client.post("/v1/completions", json={"model": adapter, "prompt": "x"})
        assert answer.status_code == 404
        healthy = client.post(
            "/v1/completions", json={"model": BASE_MODEL, "prompt": "x", "max_tokens": 1}
        )
    assert healthy.status_code == 200
