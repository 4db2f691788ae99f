"""The trainer process: specs in on stdin, JSON lines out on stdout, everything else on stderr.

Started by the supervisor as ``python -m services.worker.training --parent <pid>``. It dies with its
parent: by the kernel's parent-death signal, and when stdin ends.
"""

import os
import sys

from shared.parent_death import die_with

# Before anything slow is imported: from here on the kernel kills this process with its parent.
die_with(int(sys.argv[sys.argv.index("--parent") + 1]))

# torch's threads wait for one another thousands of times a second. By default they spin meanwhile,
# and take the cores from each other and from the serving engine: on 2 busy cores a training step
# then costs 3 to 4 times the processor time. libgomp reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Packs differ in length. oneDNN, and torch's layer above it, keep what they made for each of the
# last 1,024 shapes: 60 MB more a step, up to gigabytes. 64 hold what the layers of a pack share,
# at the same speed (docs/benchmarks.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")

# Processes that train one job together are on one machine and listen on no network (team.py).
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")

if __name__ == "__main__":
    from services.worker.training.process import main

    main()
