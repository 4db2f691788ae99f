"""vLLM as it comes, for comparison: our resolver, but its own CPU LoRA operation.

Only tests and benchmarks can start it: the product has no switch that leaves the operation out.
"""

import json

from vllm.lora.resolver import LoRAResolverRegistry

from services.inference.guard import Guard
from services.inference.resolver import StoreResolver
from services.inference.settings import InferenceSettings
from shared.catalog import load_catalog
from shared.storage import LocalStore


def register() -> None:
    """Register the resolver, as a vLLM plugin, and nothing else; report nothing."""
    settings = InferenceSettings()
    entry = load_catalog().get(settings.inference_base_model)
    base_sha256 = entry.base_sha256(settings.models_dir)
    base_config = json.loads((entry.folder(settings.models_dir) / "config.json").read_bytes())
    resolver = StoreResolver(LocalStore(settings.store_dir), entry, base_sha256, base_config)
    LoRAResolverRegistry.register_resolver("stock", resolver)


class OpenGuard(Guard):
    """The guard, serving although the parts have not reported."""

    def _unreported(self) -> list[str]:
        return []
