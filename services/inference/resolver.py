"""Finds an adapter in the artifact store on its first request, and trusts nothing in its folder."""

import asyncio
import logging

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from services.inference.adapter_check import AdapterRefused, verify_adapter
from shared.catalog import BaseModelEntry
from shared.ids import is_adapter_id
from shared.storage import CorruptArtifact, LocalStore

_logger = logging.getLogger("vllm.tailor.resolver")


class StoreResolver(LoRAResolver):  # type: ignore[misc]  # vLLM is not typed for us
    """Turns an adapter id into a verified folder; any other name finds nothing."""

    def __init__(self, store: LocalStore, entry: BaseModelEntry, base_sha256: str) -> None:
        self._store = store
        self._profile = entry.profile
        self._base_sha256 = base_sha256

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:  # noqa: ARG002
        """Return where the adapter lies, or None (vLLM answers 404) with the reason in the log."""
        if not is_adapter_id(lora_name):
            return None
        folder = self._store.adapter(lora_name)
        try:
            await asyncio.to_thread(verify_adapter, folder, self._base_sha256, self._profile)
        except (CorruptArtifact, AdapterRefused) as refusal:
            _logger.warning("adapter %s is not served: %s", lora_name, refusal)
            return None
        # vLLM replaces the number by one of its own.
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))
