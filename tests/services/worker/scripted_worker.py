"""The real worker with the scripted trainer in place of the one that needs torch."""

import sys

from services.worker.__main__ import main
from services.worker.settings import WorkerSettings

SCRIPTED = (sys.executable, "-m", "tests.services.worker.scripted_trainer")

if __name__ == "__main__":
    sys.exit(main(WorkerSettings(), SCRIPTED))
