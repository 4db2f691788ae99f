"""Tables, grants and row-level policies.

``tailor_api`` reaches rows of the tenant named by ``app.tenant`` in its transaction, nothing else;
an unset or empty setting is nobody. ``tailor_system`` reaches all rows.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CURRENT_TENANT = "NULLIF(current_setting('app.tenant', true), '')"
API_GRANTS = {
    "tenants": "SELECT",
    "files": "SELECT, INSERT, UPDATE (deleted_at)",
    "fine_tuning_jobs": "SELECT, INSERT, UPDATE",
    "job_events": "SELECT, INSERT",
    "adapters": "SELECT, UPDATE (deleted_at)",
}
TABLES = (*API_GRANTS, "api_keys")


def upgrade() -> None:
    create_tables()
    for table in TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO tailor_system")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY system ON {table} TO tailor_system USING (true)")
    for table, rights in API_GRANTS.items():
        tenant_column = "id" if table == "tenants" else "tenant_id"
        op.execute(f"GRANT {rights} ON {table} TO tailor_api")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO tailor_api"
            f" USING ({tenant_column} = {CURRENT_TENANT})"
        )


def create_tables() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("tenant_id", sa.String(length=48), nullable=True),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("hint", sa.String(length=16), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(tenant_id IS NULL) = is_admin", name=op.f("ck_api_keys_admin_has_no_tenant")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_index(op.f("ix_api_keys_tenant_id"), "api_keys", ["tenant_id"], unique=False)
    op.create_table(
        "files",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("tenant_id", sa.String(length=48), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_details", sa.String(), nullable=True),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('uploaded', 'processed', 'error')", name=op.f("ck_files_status")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_files_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
    )
    op.create_index(op.f("ix_files_tenant_id"), "files", ["tenant_id"], unique=False)
    op.create_table(
        "fine_tuning_jobs",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("tenant_id", sa.String(length=48), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("base_model", sa.String(length=100), nullable=False),
        sa.Column("training_file_id", sa.String(length=48), nullable=False),
        sa.Column("validation_file_id", sa.String(length=48), nullable=True),
        sa.Column("suffix", sa.String(length=64), nullable=True),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("user_metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("method", sa.String(length=16), server_default="supervised", nullable=False),
        sa.Column("hyperparameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("queue", sa.String(length=32), server_default="default", nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_sha256", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column(
            "state_changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.String(length=100), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fruitless_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("highest_step", sa.Integer(), server_default="0", nullable=False),
        sa.Column("micro_batch_divisor", sa.Integer(), server_default="1", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("result_file_id", sa.String(length=48), nullable=True),
        sa.CheckConstraint(
            "state IN ('validating', 'queued', 'starting', 'running', 'publishing', 'pausing',"
            " 'paused', 'cancelling', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_fine_tuning_jobs_state"),
        ),
        sa.ForeignKeyConstraint(
            ["result_file_id"], ["files.id"], name=op.f("fk_fine_tuning_jobs_result_file_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_fine_tuning_jobs_tenant_id")
        ),
        sa.ForeignKeyConstraint(
            ["training_file_id"], ["files.id"], name=op.f("fk_fine_tuning_jobs_training_file_id")
        ),
        sa.ForeignKeyConstraint(
            ["validation_file_id"],
            ["files.id"],
            name=op.f("fk_fine_tuning_jobs_validation_file_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fine_tuning_jobs")),
    )
    op.create_index(
        "ix_fine_tuning_jobs_queue",
        "fine_tuning_jobs",
        ["queue", "state", "created_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_fine_tuning_jobs_tenant_id"), "fine_tuning_jobs", ["tenant_id"], unique=False
    )
    op.create_index(
        "uq_fine_tuning_jobs_idempotency",
        "fine_tuning_jobs",
        ["tenant_id", "idempotency_key"],
        unique=True,
        postgresql_where="idempotency_key IS NOT NULL",
    )
    op.create_table(
        "adapters",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("tenant_id", sa.String(length=48), nullable=False),
        sa.Column("job_id", sa.String(length=48), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("base_model", sa.String(length=100), nullable=False),
        sa.Column("base_sha256", sa.String(length=64), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('final', 'checkpoint', 'import')", name=op.f("ck_adapters_kind")
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["fine_tuning_jobs.id"], name=op.f("fk_adapters_job_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_adapters_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adapters")),
        sa.UniqueConstraint("model", name=op.f("uq_adapters_model")),
    )
    op.create_index(op.f("ix_adapters_job_id"), "adapters", ["job_id"], unique=False)
    op.create_index(op.f("ix_adapters_tenant_id"), "adapters", ["tenant_id"], unique=False)
    op.create_index(
        "uq_adapters_final", "adapters", ["job_id"], unique=True, postgresql_where="kind = 'final'"
    )
    op.create_index(
        "uq_adapters_step",
        "adapters",
        ["job_id", "step"],
        unique=True,
        postgresql_where="kind = 'checkpoint'",
    )
    op.create_table(
        "job_events",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.String(length=48), nullable=False),
        sa.Column("job_id", sa.String(length=48), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("type", sa.String(length=8), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["fine_tuning_jobs.id"], name=op.f("fk_job_events_job_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_job_events_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
        sa.UniqueConstraint("seq", name=op.f("uq_job_events_seq")),
    )
    op.create_index("ix_job_events_job_seq", "job_events", ["job_id", "seq"], unique=False)
    op.create_index(op.f("ix_job_events_tenant_id"), "job_events", ["tenant_id"], unique=False)


def downgrade() -> None:
    for table in ("job_events", "adapters", "fine_tuning_jobs", "files", "api_keys", "tenants"):
        op.drop_table(table)
