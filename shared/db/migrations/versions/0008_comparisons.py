"""Comparisons with their answers and events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

CURRENT_TENANT = "NULLIF(current_setting('app.tenant', true), '')"
API_GRANTS = {
    "comparisons": "SELECT, INSERT, UPDATE",
    "comparison_answers": "SELECT, DELETE",
    "comparison_events": "SELECT, INSERT, DELETE",
}
STATES = "'waiting', 'queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled'"


def upgrade() -> None:
    create_comparisons()
    create_answers()
    create_events()
    for table, rights in API_GRANTS.items():
        op.create_index(op.f(f"ix_{table}_tenant_id"), table, ["tenant_id"], unique=False)
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO tailor_system")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY system ON {table} TO tailor_system USING (true)")
        op.execute(f"GRANT {rights} ON {table} TO tailor_api")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO tailor_api USING (tenant_id = {CURRENT_TENANT})"
        )


def now_column(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=sa.text("clock_timestamp()"),
        nullable=False,
    )


def time_column(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True)


def create_comparisons() -> None:
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("tenant_id", sa.String(length=48), nullable=False),
        now_column("created_at"),
        sa.Column("base_model", sa.String(length=100), nullable=False),
        sa.Column("job_id", sa.String(length=48), nullable=True),
        sa.Column("training_file_id", sa.String(length=48), nullable=False),
        sa.Column("held_out_file_id", sa.String(length=48), nullable=True),
        sa.Column("document_file_ids", JSONB(), nullable=False),
        sa.Column("arms", JSONB(), nullable=False),
        sa.Column("checker", sa.String(length=32), nullable=True),
        sa.Column("questions", sa.Integer(), nullable=False),
        sa.Column("max_tokens", sa.Integer(), nullable=True),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("retriever", sa.String(length=16), nullable=False),
        sa.Column("user_metadata", JSONB(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_sha256", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        now_column("state_changed_at"),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.String(length=100), nullable=True),
        time_column("not_before"),
        sa.Column("fruitless_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("most_asked", sa.Integer(), server_default="0", nullable=False),
        time_column("started_at"),
        time_column("finished_at"),
        sa.Column("progress", JSONB(), nullable=True),
        sa.Column("error", JSONB(), nullable=True),
        sa.Column("report", JSONB(), nullable=True),
        time_column("deleted_at"),
        sa.CheckConstraint(f"state IN ({STATES})", name=op.f("ck_comparisons_state")),
        *foreign_keys("comparisons", tenants="tenant_id", fine_tuning_jobs="job_id"),
        sa.ForeignKeyConstraint(
            ["training_file_id"], ["files.id"], name=op.f("fk_comparisons_training_file_id")
        ),
        sa.ForeignKeyConstraint(
            ["held_out_file_id"], ["files.id"], name=op.f("fk_comparisons_held_out_file_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparisons")),
    )
    op.create_index("ix_comparisons_state", "comparisons", ["state", "created_at"], unique=False)
    op.create_index(op.f("ix_comparisons_job_id"), "comparisons", ["job_id"], unique=False)
    op.create_index(
        "uq_comparisons_idempotency",
        "comparisons",
        ["tenant_id", "idempotency_key"],
        unique=True,
        postgresql_where="idempotency_key IS NOT NULL",
    )


def create_answers() -> None:
    op.create_table(
        "comparison_answers",
        sa.Column("comparison_id", sa.String(length=48), nullable=False),
        sa.Column("arm", sa.String(length=32), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.String(length=48), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("failed", sa.String(length=64), nullable=True),
        sa.Column("cut", sa.Boolean(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("first_token_seconds", sa.Float(), nullable=True),
        sa.Column("answer_seconds", sa.Float(), nullable=True),
        sa.Column("retrieved", JSONB(), nullable=True),
        *foreign_keys("comparison_answers", tenants="tenant_id", comparisons="comparison_id"),
        sa.PrimaryKeyConstraint("comparison_id", "arm", "line", name=op.f("pk_comparison_answers")),
    )


def create_events() -> None:
    op.create_table(
        "comparison_events",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.String(length=48), nullable=False),
        sa.Column("comparison_id", sa.String(length=48), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=True),
        now_column("created_at"),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("type", sa.String(length=8), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("data", JSONB(), nullable=True),
        *foreign_keys("comparison_events", tenants="tenant_id", comparisons="comparison_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparison_events")),
        sa.UniqueConstraint("seq", name=op.f("uq_comparison_events_seq")),
    )
    op.create_index(
        "ix_comparison_events_comparison_seq",
        "comparison_events",
        ["comparison_id", "seq"],
        unique=False,
    )


def foreign_keys(table: str, **targets: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint([column], [f"{target}.id"], name=op.f(f"fk_{table}_{column}"))
        for target, column in targets.items()
    ]
