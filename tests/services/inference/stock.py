"""vLLM as it comes, for comparison: our resolver, but its own CPU LoRA operation.

Only tests and benchmarks can start it: the product has no switch that leaves the operation out.
"""

from vllm.lora.resolver import LoRAResolverRegistry

from services.inference.guard import Guard
from services.inference.resolver import StoreResolver
from services.inference.settings import InferenceSettings
from shared.catalog import load_catalog
from shared.storage import LocalStore


def register() -> None:
    """Register the resolver, as a vLLM plugin, and nothing else; report nothing."""
    settings = InferenceSettings()
    entry = load_catalog(settings.models_dir).get(settings.inference_base_model)
    resolver = StoreResolver(LocalStore(settings.store_dir), entry)
    LoRAResolverRegistry.register_resolver("stock", resolver)


class OpenGuard(Guard):
    """The guard, serving although the parts have not reported."""

    def _unreported(self) -> list[str]:
        return []
