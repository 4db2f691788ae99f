"""Whether an adapter's folder may be served: hashes, base model, shape. Needs no vLLM."""

import json
from pathlib import Path

from shared.catalog import AdapterProfile
from shared.errors import TailorError
from shared.storage import verify_manifest


class AdapterRefused(TailorError):
    """The adapter belongs to another base model or is outside the profile."""


def verify_adapter(folder: Path, base_sha256: str, profile: AdapterProfile) -> None:
    """Read every file of an adapter and check it.

    Raises CorruptArtifact when a file differs from the manifest, AdapterRefused when it must not
    be served by this base model.
    """
    meta = verify_manifest(folder)
    if meta.get("base_sha256") != base_sha256:
        raise AdapterRefused("it was trained on another base model")
    config = json.loads((folder / "adapter_config.json").read_bytes())
    rank = max([config["r"], *config.get("rank_pattern", {}).values()])
    if rank > profile.max_rank:
        raise AdapterRefused(f"its rank {rank} is above {profile.max_rank}")
    for feature in ("use_dora", "modules_to_save"):
        if config.get(feature):
            raise AdapterRefused(f"vLLM cannot serve {feature}")
    if config.get("bias", "none") != "none":
        raise AdapterRefused("vLLM cannot serve bias")
