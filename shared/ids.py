"""Public identifiers: a type prefix and a ULID: sorted by creation, never made by a user."""

import re

from ulid import ULID

_ULID = "[0-9A-HJKMNP-TV-Z]{26}"
ADAPTER_ID = re.compile(f"ad_{_ULID}")
"""The only model names, besides the catalog's, that the inference service admits."""
JOB_ID = re.compile(f"ftjob-{_ULID}")


def new_id(prefix: str) -> str:
    """Return ``<prefix><ULID>``, for example ``ftjob-01J…`` or ``ad_01J…``."""
    return f"{prefix}{ULID()}"


def is_adapter_id(text: str) -> bool:
    """Say whether ``text`` is exactly an adapter id (safe as a folder name)."""
    return ADAPTER_ID.fullmatch(text) is not None


def is_job_id(text: str) -> bool:
    """Say whether ``text`` is exactly a job's id (safe as a folder name)."""
    return JOB_ID.fullmatch(text) is not None
