"""The data report, with the job and with its files; and the jobs that wait for theirs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("files", "fine_tuning_jobs"):
        op.add_column(table, sa.Column("data_report", postgresql.JSONB(), nullable=True))
    op.create_index(
        "ix_fine_tuning_jobs_validating",
        "fine_tuning_jobs",
        ["tenant_id", "created_at"],
        postgresql_where=sa.text("state = 'validating'"),
    )
