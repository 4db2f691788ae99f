"""A full disk: how the worker and its trainer know it, and what they say."""

import errno

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL = "The disk is full; the job waits and goes on when there is room"


def is_disk_full(error: BaseException) -> bool:
    """Say whether ``error`` is the system's word that there is no room for a file."""
    return isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS
