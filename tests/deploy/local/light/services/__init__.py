"""Stands before the real ``services``: everything is real but ``python -m services.inference``."""

from pathlib import Path

__path__ = [*__path__, str(Path(__file__).parents[5] / "services")]
