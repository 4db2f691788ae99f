"""Alembic's entry point: runs the migrations on the connection shared.db.migrate hands over."""

from alembic import context

from shared.db.tables import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
