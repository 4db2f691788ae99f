"""A process that ends with the one that started it: Linux's parent-death signal.

Its own module, without psutil (which does not know the signal): a child calls it before it imports
anything slow. The signal follows the parent's *thread*, and survives ``exec``.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, its parent, ends; exit if it has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above, and the signal with it.
    if os.getppid() != parent:
        # Neither sys.exit nor sys.stderr: a forked child would clean up for its parent, or wait.
        os.write(2, b"the parent process has ended\n")
        os._exit(1)
