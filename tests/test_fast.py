"""Which tests `make check` runs: those that start nothing, without importing an engine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def fast(*paths: str) -> str:
    """Return what ``-m fast`` would run of these."""
    command = [sys.executable, "-m", "pytest", "-m", "fast", "--collect-only", "--quiet", *paths]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


@pytest.mark.slow
def test_fast_are_those_that_start_nothing_and_import_no_engine() -> None:
    by_fixture, by_import = "tests/services/scheduler/test_metrics.py", "tests/services/worker"
    found = fast("tests/shared/test_errors.py", by_fixture, f"{by_import}/training")
    names = {line.partition("::")[0] for line in found.splitlines() if "::" in line}
    assert names == {"tests/shared/test_errors.py", by_fixture}
    # Of the one with a database, only what reads the rules.
    assert [line for line in found.splitlines() if line.startswith(by_fixture)] == [
        f"{by_fixture}::test_every_alert_is_one_that_fires_in_a_test_or_is_prometheus_own"
    ]
