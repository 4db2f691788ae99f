"""Finds an adapter in the artifact store on its first request, and trusts nothing in its folder."""

import asyncio
import logging

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from services.inference.load_check import AdapterRefused, verify_adapter
from services.inference.metrics import ADAPTER_LOADS
from services.inference.refusals import REFUSALS
from shared.catalog import BaseModelEntry
from shared.ids import is_adapter_id
from shared.storage import CorruptArtifact, LocalStore
from shared.telemetry import log_event

_logger = logging.getLogger("vllm.tailor.resolver")


class StoreResolver(LoRAResolver):  # type: ignore[misc]  # vLLM is not typed for us
    """Turns an adapter id into a verified folder; any other name finds nothing."""

    def __init__(self, store: LocalStore, entry: BaseModelEntry) -> None:
        self._store = store
        self._entry = entry

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:  # noqa: ARG002
        """Return where the adapter lies, or None with the reason noted: vLLM's 404 becomes it."""
        if not is_adapter_id(lora_name):
            return None
        folder = self._store.adapter(lora_name)
        try:
            await asyncio.to_thread(verify_adapter, folder, self._entry)
        except CorruptArtifact:
            ADAPTER_LOADS.labels("damaged").inc()
            _logger.exception(
                "an adapter is damaged and not served",
                extra=log_event("adapter_damaged", adapter_id=lora_name),
            )
            REFUSALS.note(lora_name, AdapterRefused("its files are damaged"))
            return None
        except AdapterRefused as refusal:
            ADAPTER_LOADS.labels("refused").inc()
            _logger.warning(
                "an adapter is not served",
                extra=log_event("adapter_refused", adapter_id=lora_name, reason=str(refusal)),
            )
            REFUSALS.note(lora_name, refusal)
            return None
        ADAPTER_LOADS.labels("found").inc()
        REFUSALS.forget(lora_name)
        # vLLM replaces the number by one of its own.
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))
