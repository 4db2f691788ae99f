"""The vLLM plugin: vLLM calls ``register`` in its API process, its engine and its worker."""

import multiprocessing

from vllm.lora.resolver import LoRAResolverRegistry

from services.inference import cpu_lora
from services.inference.registration import LoadPermission
from services.inference.reports import Reports
from services.inference.resolver import StoreResolver
from services.inference.settings import InferenceSettings
from shared.catalog import load_catalog
from shared.parent_death import die_with
from shared.storage import LocalStore


def register() -> None:
    """Install resolver and CPU operation; tie engine and worker to the process above them."""
    settings = InferenceSettings()
    entry = load_catalog(settings.models_dir).get(settings.inference_base_model)
    reports = Reports(settings.inference_state_dir)
    if settings.inference_device == "cpu":
        cpu_lora.install(reports)
    database = settings.inference_database_url
    may_load = LoadPermission(database, settings.own_url) if database else None
    resolver = StoreResolver(LocalStore(settings.store_dir), entry, may_load)
    LoRAResolverRegistry.register_resolver("tailor", resolver)
    reports.write("resolver")
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        # vLLM's engine outlives a killed API process, with all of its memory. Asking the system for
        # the parent would accept whoever took over from one that has ended already.
        die_with(parent.pid)
