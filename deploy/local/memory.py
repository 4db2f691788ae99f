"""Memory that serving and training share: what it will be, what there is, what is taken.

The estimate is the weights' size, the key-value caches as they are set, and two figures measured
on this stack (docs/operations.md); it refuses only what cannot fit.
"""

from collections.abc import Sequence
from pathlib import Path

import psutil
from pydantic import Field

from deploy.local.errors import StackError
from shared.catalog import load_catalog
from shared.processor import has_instructions_for_bf16
from shared.settings import TailorSettings

ENGINE_BYTES = 1_850_000_000
"""Of a vLLM beside its weights and its cache: libraries, buffers, kept adapters."""
TRAINER_BYTES = 2_700_000_000
"""Of a trainer beside its weights: libraries, one micro batch, the kept prefix."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class EngineSettings(TailorSettings):
    """What the environment says of every inference process."""

    inference_kv_cache_gb: float = Field(default=1, gt=0)


def check_memory(base_models: Sequence[str], models_dir: Path) -> None:
    """Raise StackError where these inference processes and one trainer cannot fit."""
    needed, there = estimate(base_models, models_dir), of_machine()
    if needed > there:
        raise StackError(
            f"Serving {', '.join(base_models)} and training beside it takes about "
            f"{needed / 1e9:.1f} GB of memory, and this machine has {there / 1e9:.1f} GB: serve "
            "fewer base models or replicas, or set TAILOR_INFERENCE_KV_CACHE_GB lower."
        )


def estimate(base_models: Sequence[str], models_dir: Path) -> int:
    """Return the bytes that one inference process for each of ``base_models``, and one trainer of
    the largest of them, will take.
    """
    catalog, engine = load_catalog(models_dir), EngineSettings()
    wider = 1 if has_instructions_for_bf16() else 2  # what is stored in bf16 is float32 in memory
    weights = [
        sum(wider * (entry.folder(models_dir) / name).stat().st_size for name in entry.weights)
        for entry in map(catalog.get, base_models)
    ]
    cache = int(engine.inference_kv_cache_gb * 2**30)
    return sum(weights) + len(weights) * (cache + ENGINE_BYTES) + max(weights) + TRAINER_BYTES


def of_machine() -> int:
    """Return the bytes that this machine, or the container that we are in, has."""
    total: int = psutil.virtual_memory().total
    try:
        return min(total, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such limit, or "max"
        return total


def of_tree(pid: int) -> int | None:
    """Return the bytes that a process and its descendants hold; None when it is gone."""
    try:
        leader = psutil.Process(pid)
        return sum(_held(each) for each in (leader, *leader.children(recursive=True)))
    except psutil.NoSuchProcess:
        return None


def _held(process: psutil.Process) -> int:
    """Without shared pages, which PostgreSQL's processes would count many times over."""
    try:
        found = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(found.rss - found.shared)
