"""Private folders, and sockets whose paths the kernel accepts."""

import socket

import pytest

from deploy.local.folders import (
    LONGEST_SOCKET_NAME,
    SOCKET_PATH_BYTES,
    remove_socket_folder,
    socket_folder,
)


def test_a_short_path_keeps_its_sockets_inside(short_folder):
    folder = socket_folder(short_folder / "sockets")
    assert folder == short_folder / "sockets"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("part", ["deep", "深い"])
def test_an_over_long_path_gets_a_short_private_folder_that_is_recorded_and_removed(
    short_folder, part
):
    link = short_folder / "/".join([part] * 40) / "sockets"
    folder = socket_folder(link)
    longest = folder / LONGEST_SOCKET_NAME
    assert len(str(longest).encode()) <= SOCKET_PATH_BYTES
    assert link.readlink() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(longest))
    assert socket_folder(link) == folder
    remove_socket_folder(link)
    assert not folder.exists()
    assert not link.is_symlink()


def test_a_recorded_folder_that_somebody_else_took_is_not_used(short_folder):
    link = short_folder / "/".join(["deep"] * 40) / "sockets"
    taken = socket_folder(link)
    taken.chmod(0o755)
    folder = socket_folder(link)
    assert folder != taken
    remove_socket_folder(link)
    taken.rmdir()
