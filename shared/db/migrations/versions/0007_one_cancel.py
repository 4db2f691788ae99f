"""A cancelled job says so by its state alone; the flag beside it is gone."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("fine_tuning_jobs", "cancel_requested")
