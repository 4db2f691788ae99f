"""The scripted worker without the guard on ``attempt``, to show what the guard prevents.

The two functions that carry it are replaced in this process alone, before anything imports them.
"""

import sys

from sqlalchemy import select

from shared.jobs import transitions
from shared.jobs.models import FineTuningJob

guarded_move = transitions.move


def move(session, job_id, to, message, *, attempt=None, **rest):
    return guarded_move(session, job_id, to, message, **rest)


transitions.move = move

from shared.jobs import lease  # noqa: E402  it takes the door as it finds it

guarded_renew = lease.renew


def renew(session, job_id, attempt, progress=None):
    current = session.scalar(select(FineTuningJob.attempt).where(FineTuningJob.id == job_id))
    return guarded_renew(session, job_id, current, progress)


lease.renew = renew

from services.worker.__main__ import main  # noqa: E402  it takes both as it finds them
from services.worker.settings import WorkerSettings  # noqa: E402
from tests.services.worker.scripted_worker import SCRIPTED  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(WorkerSettings(), SCRIPTED))
