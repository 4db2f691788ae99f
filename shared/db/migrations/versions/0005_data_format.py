"""Adapters name the format of the rows that they were trained on."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("adapters", sa.Column("data_format", sa.String(16), nullable=True))


def downgrade() -> None:
    op.drop_column("adapters", "data_format")
