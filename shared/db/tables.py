"""Imports every table, so that ``Row.metadata`` is whole (migrations, tests)."""

from shared.adapters.models import Adapter
from shared.comparisons.models import (
    Comparison,
    ComparisonAnswer,
    ComparisonEvent,
    ComparisonQuestion,
)
from shared.db.base import Row
from shared.files.models import StoredFile
from shared.jobs.models import FineTuningJob, JobEvent
from shared.replicas.models import InferenceReplica
from shared.tenants.models import ApiKey, Tenant

__all__ = [
    "Adapter",
    "ApiKey",
    "Comparison",
    "ComparisonAnswer",
    "ComparisonEvent",
    "ComparisonQuestion",
    "FineTuningJob",
    "InferenceReplica",
    "JobEvent",
    "Row",
    "StoredFile",
    "Tenant",
]
