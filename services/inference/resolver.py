"""Finds an adapter in the artifact store on its first request, and trusts nothing in its folder."""

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from services.inference.load_check import AdapterRefused, verify_adapter
from services.inference.metrics import ADAPTER_LOADS
from services.inference.refusals import REFUSALS
from shared.catalog import BaseModelEntry
from shared.errors import NotFound, UpstreamUnavailable
from shared.ids import is_adapter_id
from shared.replicas.registry import NotRegistered
from shared.storage import CorruptArtifact, LocalStore
from shared.telemetry import log_event

_logger = logging.getLogger("vllm.tailor.resolver")


class StoreResolver(LoRAResolver):  # type: ignore[misc]  # vLLM is not typed for us
    """Turns an adapter id into a verified folder; any other name finds nothing."""

    def __init__(
        self,
        store: LocalStore,
        entry: BaseModelEntry,
        may_load: Callable[[str], bool] | None = None,
    ) -> None:
        self._store = store
        self._entry = entry
        self._may_load = may_load

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:  # noqa: ARG002
        """Return where the adapter lies, or None with the reason noted: vLLM's 404 becomes it."""
        if not is_adapter_id(lora_name):
            return None
        folder = self._store.adapter(lora_name)
        if not await asyncio.to_thread(self._allowed, lora_name):
            return None
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

    def _allowed(self, adapter: str) -> bool:
        """Ask whether the adapter may be loaded; the reason why not is noted."""
        if self._may_load is None:
            return True
        try:
            allowed = self._may_load(adapter)
        except (SQLAlchemyError, NotRegistered) as error:
            data = {"adapter_id": adapter, "reason": type(error).__name__}
            _logger.warning("not asked", extra=log_event("adapter_not_asked_for", **data))
            # Loaded all the same it could be one that is being erased.
            REFUSALS.note(adapter, UpstreamUnavailable("nobody said that it may be loaded"))
            return False
        if not allowed:
            ADAPTER_LOADS.labels("deleted").inc()
            _logger.warning("deleted", extra=log_event("adapter_deleted", adapter_id=adapter))
            REFUSALS.note(adapter, NotFound("The model does not exist.", code="model_not_found"))
        return allowed
