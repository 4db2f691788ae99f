"""Registrations of inference processes, and the role that writes them.

``tailor_inference`` keeps its registrations and learns which adapters are deleted; no more.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLE = "inference_replicas"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("url", sa.String(length=300), nullable=False),
        sa.Column("base_model", sa.String(length=100), nullable=False),
        sa.Column("base_sha256", sa.String(length=64), nullable=False),
        sa.Column("profile_sha256", sa.String(length=64), nullable=False),
        sa.Column("places", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("beats", sa.BigInteger(), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "registered_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
        sa.UniqueConstraint("url", name=op.f(f"uq_{TABLE}_url")),
    )
    rights = {
        "tailor_system": "SELECT, INSERT, UPDATE, DELETE",
        "tailor_inference": "SELECT, INSERT, UPDATE, DELETE",
    }
    op.execute(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
    for role, granted in rights.items():
        op.execute(f"GRANT {granted} ON {TABLE} TO {role}")
        op.execute(f"CREATE POLICY {role} ON {TABLE} TO {role} USING (true)")
    op.execute("GRANT SELECT (id, deleted_at) ON adapters TO tailor_inference")
    op.execute("CREATE POLICY inference ON adapters FOR SELECT TO tailor_inference USING (true)")
