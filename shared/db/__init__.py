"""Database access: rows, sessions, migrations."""

from shared.db.base import (
    CreatedAt,
    Id,
    Row,
    Timestamp,
    make_engine,
    tenant_transaction,
    transaction,
)

__all__ = [
    "CreatedAt",
    "Id",
    "Row",
    "Timestamp",
    "make_engine",
    "tenant_transaction",
    "transaction",
]
