"""What each tenant has trained lately, and when each job's lease was last charged."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tenants",
        sa.Column("trained_seconds", sa.Double(), server_default="0", nullable=False),
    )
    op.add_column(
        "tenants", sa.Column("trained_seconds_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "fine_tuning_jobs",
        sa.Column("lease_charged_at", sa.DateTime(timezone=True), nullable=True),
    )


def downgrade() -> None:
    op.drop_column("fine_tuning_jobs", "lease_charged_at")
    op.drop_column("tenants", "trained_seconds_at")
    op.drop_column("tenants", "trained_seconds")
