"""Deleting an adapter on a real vLLM: it is refused, and its missing files harm nobody."""

import asyncio
import json
import shutil

import pytest

from shared.ids import new_id
from shared.storage import verify_manifest, write_manifest
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
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "adapter_refused"
        healthy = client.post(
            "/v1/completions", json={"model": BASE_MODEL, "prompt": "x", "max_tokens": 1}
        )
    assert healthy.status_code == 200


def test_an_adapter_that_does_not_fit_what_vllm_was_started_with_is_refused_with_its_reason(
    inference: Inference, sentinels: dict[str, str]
) -> None:
    """As after the catalog's profile was narrowed: vLLM would answer without a part of it."""
    adapter = copy_of(inference.store_dir, sentinels[" walnut"])
    folder = inference.store_dir / "adapters" / adapter
    meta = verify_manifest(folder)
    config = json.loads((folder / "adapter_config.json").read_bytes())
    config["target_modules"] = [*config["target_modules"], "model.layers.19.mlp.down_proj"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write_manifest(folder, meta)
    other_base = copy_of(inference.store_dir, sentinels[" walnut"])
    write_manifest(inference.store_dir / "adapters" / other_base, meta | {"base_sha256": "0"})
    asked = {"prompt": "x", "max_tokens": 1}
    with inference.client() as client:
        wider = client.post("/v1/completions", json=asked | {"model": adapter})
        stranger = client.post("/v1/completions", json=asked | {"model": other_base})
        missing = client.post("/v1/completions", json=asked | {"model": new_id("ad_")})
    assert (wider.status_code, wider.json()["error"]["code"]) == (422, "adapter_refused")
    assert "model.layers.19" in wider.json()["error"]["message"]
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (422, "base_not_served")
    assert missing.status_code == 404
