"""Settings of the inference service; plugin and guard read them too, inside vLLM's processes."""

import os
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from shared.settings import Seconds, StoreSettings


class InferenceSettings(StoreSettings):
    """How vLLM is started, guarded and watched."""

    inference_base_model: str = "smollm2-135m-instruct"
    """Catalog name of the one base model this process answers for."""
    inference_secret: SecretStr
    """What gateway, worker and scheduler send as ``Authorization: Bearer``."""
    inference_host: str = "127.0.0.1"
    inference_port: int = 8001
    inference_database_url: SecretStr | None = None
    """SQLAlchemy URL of the role ``tailor_inference``, under which this process registers; without
    it nobody finds the process, and it asks nobody before it loads an adapter."""
    inference_advertised_url: str | None = None
    """Where the other services reach this process; unset: its host (its own name, where it listens
    on every address) and port."""
    inference_beat_seconds: Seconds = 2
    """It shows this often in the database that it lives; far below TAILOR_LEASE_WINDOW_SECONDS,
    after which it is given up on."""
    metrics_secret: SecretStr | None = None
    """Opens ``/metrics``, as the internal secret does, and nothing else."""
    metrics_tenant_names: bool = False
    """Whether ``/metrics`` tells waiting requests by tenant, too."""
    inference_state_dir: Path
    """Private folder: the running group's record, and what its parts report."""

    @property
    def own_url(self) -> str:
        """Where the other services reach this process."""
        every = self.inference_host in {"0.0.0.0", "::"}  # noqa: S104  compared, not bound
        host = socket.gethostname() if every else self.inference_host
        host = f"[{host}]" if ":" in host else host
        return (self.inference_advertised_url or f"http://{host}:{self.inference_port}").rstrip("/")

    @property
    def chat_folder(self) -> Path:
        """Where the tokenizer and the chat template lie that vLLM is started with."""
        return self.inference_state_dir / "chat"

    inference_device: Literal["cpu", "cuda"] = "cpu"

    inference_gpu_memory_share: float = Field(default=0.45, gt=0, lt=1)
    """Part of a GPU's memory that this process takes; the rest is for a trainer beside it, and for
    other processes on the same device."""

    inference_threads: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """OpenMP threads of the vLLM worker; counts only with ``nobind``."""
    inference_cpu_bind: str = "nobind"
    """vLLM's VLLM_CPU_OMP_THREADS_BIND. Its own default, ``auto``, keeps one core free and pins the
    worker to the others: of two cores it uses one. ``nobind`` leaves the placing to the kernel; a
    list such as ``0-7`` pins one thread to each of these cores and sets their number."""
    inference_kv_cache_gb: float = Field(default=1, gt=0)
    inference_max_num_seqs: int = Field(default=64, ge=1)
    """Sequences in one batch: the slots that the tenants share."""
    inference_tenant_share: float = Field(default=0.5, gt=0, lt=1)
    """Part of the slots, and of the adapters that run at once, for a tenant that is alone. With
    each further busy tenant it gets less; some room is always left for the next one."""
    inference_step_tokens: int = Field(default=256, ge=64)
    """Most tokens computed in one step on a CPU, during which everybody waits; a quarter of them
    of one prompt. (On a GPU vLLM's own limits hold.)"""
    inference_cached_adapters: int = Field(default=32, ge=1)
    """Adapters kept in memory; those in use at once are the catalog's ``max_loras``."""

    inference_max_body_bytes: int = Field(default=4 << 20, ge=1)
    inference_slice_seconds: Seconds = 2
    """An adapter keeps its place this long while requests of others wait for one."""
    inference_max_waiting: int = Field(default=1000, ge=1)
    """Requests of one tenant beyond this number, waiting and running, are answered 429."""
    inference_drain_seconds: Seconds = 5
    """Before an adapter is evicted its requests may run on for this long; then they are aborted."""

    inference_canary_seconds: Seconds = 5
    """The engine must show progress, or answer a one-token request, this often…"""
    inference_hang_seconds: Seconds = 60
    """…and is restarted after this long without either."""
    inference_start_seconds: Seconds = 240
    """A start that takes longer is given up and tried again."""
    inference_stop_seconds: Seconds = 3
    """On SIGTERM vLLM gets this long to end by itself."""
