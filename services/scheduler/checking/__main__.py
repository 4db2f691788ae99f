"""The checker process: specs in on stdin, JSON lines out on stdout, everything else on stderr.

Started by the scheduler: ``python -m services.scheduler.checking --parent <pid> --memory-mb <n>``.
It reads users' files, so it has no credentials, little priority and a limit on its memory, and dies
with its parent: by the kernel's parent-death signal, and when stdin ends.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
NICE = 10

# Before anything slow is imported: from here on the kernel kills this process with its parent.
ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
# The parent may have died before the line above, and the signal with it.
if "--parent" in sys.argv and os.getppid() != int(sys.argv[sys.argv.index("--parent") + 1]):
    sys.exit("the scheduler that started this checker is gone")
if "--memory-mb" in sys.argv:
    _limit = int(sys.argv[sys.argv.index("--memory-mb") + 1]) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (_limit, _limit))
os.nice(NICE)

if __name__ == "__main__":
    from services.scheduler.checking.process import main

    main()
