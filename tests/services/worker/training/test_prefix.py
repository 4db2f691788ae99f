"""Where the frozen layers' states are kept: decided by size and room."""

import errno
from pathlib import Path

import pytest
import torch

from services.worker.training import prefix
from services.worker.training.prefix import Mode, Room, choose_mode

MB, GB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("size", "epochs", "memory", "disk", "mode"),
    [
        (100 * MB, 3, 8 * GB, 100 * GB, Mode.MEMORY),
        (100 * MB, 1, 8 * GB, 0, Mode.MEMORY),
        (100 * MB, 3, 300 * MB, 100 * GB, Mode.FILE),  # little memory is free
        (600 * MB, 3, 64 * GB, 100 * GB, Mode.FILE),  # memory is not ours alone
        (600 * MB, 1, 64 * GB, 100 * GB, Mode.FLY),  # what is read once need not be kept
        (138 * GB, 3, 64 * GB, 200 * GB, Mode.FLY),  # more than half of the disk
        (138 * GB, 3, 64 * GB, 300 * GB, Mode.FILE),
        (100 * MB, 3, 0, 0, Mode.FLY),
    ],
)
def test_states_go_where_there_is_room(
    size: int, epochs: int, memory: int, disk: int, mode: Mode
) -> None:
    assert choose_mode(size, epochs, Room(memory, disk)) is mode


def test_room_is_what_the_machine_and_its_control_group_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room.here(tmp_path / "scratch")
    assert room.memory > 0
    assert room.disk > 0
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    monkeypatch.setattr(prefix, "_CGROUP", tmp_path)
    assert Room.here(tmp_path).memory == 3000


def test_a_file_without_room_is_an_error_when_it_is_made(small_disk: Path) -> None:
    """A sparse file would be mapped gladly, and writing to it ends the process by SIGBUS."""
    with pytest.raises(OSError, match="space") as raised:
        prefix._reserve((1 << 20, 8), torch.bfloat16, small_disk)
    assert raised.value.errno == errno.ENOSPC
    assert list(small_disk.iterdir()) == []
