"""The job protocol's clocks made faster, all by one factor of at most 10, for fault tests."""

from typing import Any

from services.inference.settings import InferenceSettings
from shared.settings import JobTimings, TailorSettings


def divided_timings(factor: float) -> dict[str, str]:
    """Return the environment variables that set every clock to ``1/factor`` of its default."""
    clocks = JobTimings.model_fields.keys() - TailorSettings.model_fields.keys()
    defaults = JobTimings()
    beat = InferenceSettings.model_fields["inference_beat_seconds"].default
    return {
        f"TAILOR_{name.upper()}": _divided(getattr(defaults, name), factor) for name in clocks
    } | {"TAILOR_INFERENCE_BEAT_SECONDS": str(beat / factor)}


def _divided(value: Any, factor: float) -> str:
    if isinstance(value, tuple):
        return "[" + ",".join(str(seconds / factor) for seconds in value) + "]"
    return str(value / factor)
