"""The states that enter the first trained layer: kept for every epoch, or computed when needed.

Below that layer nothing changes during training. In bf16 a row's states depend on the batch they
were computed in. States that are kept are computed in groups made by the data set alone (sorted by
length under a fixed budget), never by epoch or step: a resumed job computes the same bits, be they
kept in memory or in a file. Computed on the fly they depend on the step's own batch: other bits,
so a run stays with what its first attempt chose.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from services.worker.training.decoder import Decoder
from services.worker.training.pack import Pack, make_pack
from services.worker.training.plan import buckets
from services.worker.training.rows import TokenRows

TOKEN_BUDGET = 2048
"""Padded tokens computed at once, before ``micro_batch_divisor``; flags are polled in between.
Part of what a resume must repeat: with another one it goes on with other bits."""
MEMORY_BUDGET_BYTES = 512 << 20
"""More than this never stays in memory."""
_CGROUP = Path("/sys/fs/cgroup")


class Mode(StrEnum):
    """Where the states are."""

    MEMORY = "memory"
    FILE = "file"
    FLY = "fly"

    @property
    def kept(self) -> bool:
        """Whether they are computed once; memory and file hold the same bits."""
        return self is not Mode.FLY


@dataclass(frozen=True)
class Room:
    """Bytes that are free."""

    memory: int
    disk: int

    @classmethod
    def here(cls, folder: Path) -> "Room":
        """Look at this machine and at the file system of ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(_free_memory(), shutil.disk_usage(folder).free)


def choose_mode(size: int, epochs: int, room: Room) -> Mode:
    """Decide where ``size`` bytes of states are, which every one of ``epochs`` reads once.

    Memory and disk are shared with other processes: at most a quarter and a half of what is free.
    """
    if size <= min(MEMORY_BUDGET_BYTES, room.memory // 4):
        return Mode.MEMORY
    if epochs > 1 and size <= room.disk // 2:
        return Mode.FILE
    return Mode.FLY


class PrefixCache:
    """The states [all tokens, D] of one set of rows, and the packs that start from them."""

    def __init__(
        self,
        base: Decoder,
        rows: TokenRows,
        first_layer: int,
        working: Callable[[int, int], None],
        folder: Path,
        *,
        mode: Mode = Mode.MEMORY,
        token_budget: int = TOKEN_BUDGET,
    ) -> None:
        """``working`` is called with the rows done and all rows while states are computed.

        ``token_budget`` limits the groups that states are computed in, and the micro-batches.

        States in memory are computed now, those in a file (nameless, in ``folder``) when their
        group is first asked for: a large job need not wait hours for its first step. Raises OSError
        (ENOSPC) where the file has no room.
        """
        self.rows = rows
        self.lengths = rows.lengths
        self._base, self._first_layer, self._working = base, first_layer, working
        self._token_budget = token_budget
        self._states: Tensor | None = None
        if mode.kept:
            shape = (rows.tokens, base.width)  # as the rows lie end to end
            self._states = (
                torch.empty(shape, dtype=base.linears.dtype)
                if mode is Mode.MEMORY
                else _reserve(shape, base.linears.dtype, folder)
            )
            self._groups = [
                np.array(group, dtype=np.int32) for group in self.micro_batches(range(len(rows)))
            ]
            self._group_of = np.empty(len(rows), dtype=np.int32)
            for number, group in enumerate(self._groups):
                self._group_of[group] = number
            self._computed = np.zeros(len(self._groups), dtype=np.bool_)
            self._rows_done = 0
        if mode is Mode.MEMORY:
            self._compute(range(len(self._groups)))

    def micro_batches(self, members: Sequence[int]) -> list[list[int]]:
        """Divide the rows numbered ``members`` into groups that are computed at once."""
        return buckets(members, self.lengths, self._token_budget)

    def pack(self, members: Sequence[int]) -> Pack:
        """Lay out the rows numbered ``members``."""
        base = self._base
        return make_pack(members, self.rows, base.linears.device, share=base.shares_beginnings)

    @torch.no_grad()
    def states(self, pack: Pack) -> Tensor:
        """Return what enters the first trained layer, [T, D]."""
        if self._states is None:
            return self._base.below(pack, self._first_layer)
        self._compute(np.unique(self._group_of[list(pack.rows)]).tolist())
        return self._states.index_select(0, pack.source).to(self._base.linears.device)

    @torch.no_grad()
    def _compute(self, groups: Sequence[int]) -> None:
        """Compute those of ``groups`` that are not there yet."""
        for number in groups:
            if self._computed[number]:
                continue
            self._working(self._rows_done, len(self.rows))
            pack = self.pack(self._groups[number].tolist())
            self._keep(pack, self._base.below(pack, self._first_layer).cpu())
            self._computed[number] = True
            self._rows_done += len(pack.rows)

    def _keep(self, pack: Pack, states: Tensor) -> None:
        """Store a computed group's [T, D]: for each row the shared tokens first, then its own.

        Each row has a copy of what it shares: another pack may share more, less or nothing.
        """
        assert self._states is not None  # noqa: S101  only kept states are computed by group
        for member, own in zip(pack.rows, pack.begins, strict=True):
            begin, end = self.rows.offsets[member], self.rows.offsets[member + 1]
            middle = begin + pack.shared
            self._states[begin:middle] = states[: pack.shared]
            self._states[middle:end] = states[own : own + end - middle]


def _reserve(shape: tuple[int, int], dtype: torch.dtype, folder: Path) -> Tensor:
    """Map a nameless file whose blocks are all reserved: a full disk is an error here and now."""
    size = shape[0] * shape[1]
    if not size:  # of few rows, a process of a team may have none; nothing cannot be mapped
        return torch.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
        path = f"/proc/self/fd/{file.fileno()}"
        return torch.from_file(path, shared=True, size=size, dtype=dtype).view(shape)


def _free_memory() -> int:
    """Bytes available on the machine, or in its control group where that has less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    limit = _CGROUP / "memory.max"
    text = limit.read_text().strip() if limit.exists() else "max"
    if text == "max":
        return available * 1024
    used = int((_CGROUP / "memory.current").read_text())
    return min(available * 1024, max(0, int(text) - used))
