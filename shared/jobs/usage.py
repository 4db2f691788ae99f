"""What a tenant has trained lately, in worker-seconds that fade: the measure of its fair share.

An exponentially decayed sum needs two numbers a tenant, the sum and the time it is true of. Every
heartbeat charges the time since the one before, so a job that runs is counted while it runs, also
when its worker vanishes. (Decayed usage as a share's measure: Slurm's and HTCondor's fair share.)
"""

from datetime import timedelta

from sqlalchemy import ColumnElement, func, update
from sqlalchemy.orm import Session

from shared.jobs.models import FineTuningJob
from shared.jobs.state import LEASED
from shared.tenants.models import Tenant

HALF_LIFE = timedelta(hours=6)
"""After this long a second of training counts half."""
RUNNING_SECONDS = 60.0
"""What each job that runs counts beside the seconds it was charged: it will go on for a while."""


def charge(session: Session, job_id: str, attempt: int) -> None:
    """Add the time since the attempt's last charge to its tenant's usage.

    Nothing happens when the attempt does not hold the job. The caller sets ``lease_charged_at`` in
    the same transaction; one worker renews an attempt, one renewal at a time.
    """
    since = func.clock_timestamp() - FineTuningJob.lease_charged_at
    session.execute(
        update(Tenant)
        .where(
            Tenant.id == FineTuningJob.tenant_id,
            FineTuningJob.id == job_id,
            FineTuningJob.attempt == attempt,
            FineTuningJob.state.in_(LEASED),
        )
        .values(
            trained_seconds=recent_usage() + func.coalesce(func.extract("epoch", since), 0),
            trained_seconds_at=func.clock_timestamp(),
        )
        .execution_options(synchronize_session=False)
    )


def recent_usage() -> ColumnElement[float]:
    """Return a tenant's faded worker-seconds as of now, as an expression over ``Tenant``."""
    return func.coalesce(Tenant.trained_seconds * _fading(), 0.0)


def _fading() -> ColumnElement[float]:
    age = func.extract("epoch", func.clock_timestamp() - Tenant.trained_seconds_at)
    return func.power(0.5, func.coalesce(age, 0) / HALF_LIFE.total_seconds())
