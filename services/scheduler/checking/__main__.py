"""The checker process: specs in on stdin, JSON lines out on stdout, everything else on stderr.

Started by the scheduler: ``python -m services.scheduler.checking --parent <pid> --memory-mb <n>``.
It reads users' files, so it has no credentials, little priority and a limit on its memory, and dies
with its parent: by the kernel's parent-death signal, and when stdin ends.
"""

import os
import resource
import sys

from shared.parent_death import die_with

NICE = 10

# Before anything slow is imported: from here on the kernel kills this process with its parent.
die_with(int(sys.argv[sys.argv.index("--parent") + 1]))
if "--memory-mb" in sys.argv:
    _limit = int(sys.argv[sys.argv.index("--memory-mb") + 1]) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (_limit, _limit))
os.nice(NICE)

if __name__ == "__main__":
    from services.scheduler.checking.process import main

    main()
