"""A tenant as it sees itself."""

from typing import Literal

from pydantic import BaseModel

from shared.tenants.limits import Limits


class AccountKeyOut(BaseModel):
    """One of the tenant's keys that work, without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    hint: str
    """The key's last four characters."""
    created_at: int


class AccountUsage(BaseModel):
    """What is taken of what the limits allow, and what was trained."""

    stored_bytes: int
    queued_jobs: int
    """That no worker has taken yet."""
    jobs: int
    models: int
    """That can be called, checkpoints left out."""
    trained_tokens: int
    """By all jobs that have ended well."""


class AccountOut(BaseModel):
    """Who the key's owner is."""

    id: str
    object: Literal["account"] = "account"
    name: str
    created_at: int
    limits: Limits
    usage: AccountUsage
    keys: list[AccountKeyOut]
