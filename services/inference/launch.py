"""Becomes vLLM, after asking the kernel to be killed together with ``serve.py``.

``python -m services.inference.launch PARENT_PID PROGRAM ARGUMENT…``: a death signal survives
``exec``, and setting it here needs no code between fork and exec in the supervisor.
"""

import os
import sys

from shared.parent_death import die_with

if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  the command is built by command.py
