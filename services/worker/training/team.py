"""One job in several processes, a GPU each: they share the rows, and all have the same adapter.

The base model is in every process. A step exchanges the adapter's gradient and a few numbers, as
sums over all; everybody gets the same bits and decides everything from them, so that all take the
same steps. A process alone exchanges nothing and computes what it did before there were teams.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is C++

HOST = "127.0.0.1"
"""The processes are on one machine, and nobody else shall join them."""
PATIENCE = timedelta(days=1)
"""Of one process for the others: the leader exports while they wait. Who hangs is noticed by the
supervisor, who ends is by the leader (peers.py)."""


class TeamLost(Exception):
    """Another process of the team has ended."""


class TooFewDevices(Exception):
    """The team has more processes than this machine has GPUs."""


@dataclass(frozen=True)
class Team:
    """Which of how many processes this one is; what sums is called by all at once."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one speaks, writes and is stopped."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """This process's own GPU, or the CPU that all share."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.rank) if self.size > 1 else torch.device("cuda")

    def add_up(self, gradient: Tensor) -> None:
        """Replace ``gradient`` by the sum of everybody's."""
        if self.size > 1:
            with _together():
                distributed.all_reduce(gradient)

    def sums(self, *values: float) -> tuple[float, ...]:
        """Return each value's sum over all."""
        if self.size == 1:
            return values
        held = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.add_up(held)
        return tuple(held.tolist())

    def leaders(self, *values: float) -> tuple[float, ...]:
        """Return the leader's values: what depends on this moment, or on one processor."""
        return self.sums(*(value if self.leads else 0.0 for value in values))


ALONE = Team()


def open_meeting(size: int) -> TCPStore:
    """Return where a team meets; the others find it by its ``port``."""
    # A socket of ours: torch's own would listen on every network.
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    return TCPStore(
        HOST,
        port,
        size,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def find_meeting(port: int, size: int) -> TCPStore:
    """Return the leader's meeting."""
    return TCPStore(HOST, port, size, is_master=False)


def join(meeting: TCPStore, rank: int, size: int) -> Team:
    """Come to ``meeting`` as ``rank`` and wait for the others; raises TooFewDevices."""
    team = Team(rank, size)
    if (device := team.device).type == "cuda":
        if size > torch.cuda.device_count():
            raise TooFewDevices(
                f"This worker is to train in {size} processes and has "
                f"{torch.cuda.device_count()} GPU(s): TAILOR_TRAINER_PROCESSES is too large."
            )
        torch.cuda.set_device(device)
    with _together():
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=meeting,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    return team


@contextmanager
def _together() -> Iterator[None]:
    """Gloo and NCCL have no class of their own for a peer that is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise TeamLost("Another training process of the job ended.") from error
