"""Adapters name the profile they were trained for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("adapters", sa.Column("profile_sha256", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("adapters", "profile_sha256")
