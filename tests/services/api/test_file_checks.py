"""The processes that read training files: their limits, their number, and their end."""

import asyncio
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from services.api.files.checking import FileChecks
from services.api.settings import ApiSettings
from shared.errors import InvalidRequest, RateLimited, UpstreamUnavailable
from tests.conftest import wait_until


def checks(**limits: Any) -> FileChecks:
    """Build places with limits of the test's own."""
    secret = SecretStr("x")
    settings = ApiSettings(
        database_url=secret,
        system_database_url=secret,
        broker_url=secret,
        store_dir=Path("/nonexistent"),
        models_dir=Path("/nonexistent"),
        inference_secret=secret,
        cache_salt_key=secret,
        **limits,
    )
    return FileChecks(settings)


def children() -> list[psutil.Process]:
    """The checking processes of this one."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "check_process" in " ".join(child.cmdline())
    ]


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file whose reading never ends."""
    path = tmp_path / "raw"
    os.mkfifo(path)
    return path


def test_a_file_is_read_in_another_process_and_its_report_comes_back(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text('{"prompt": "q", "completion": "a"}\n')
    rows = tmp_path / "rows.jsonl"
    report = asyncio.run(checks().check("t", tmp_path / "raw", "a;$(x)/..\n.jsonl", rows))
    assert (report.rows, report.format) == (1, "prompt")
    assert rows.read_text().count("\n") == 1


def test_a_file_that_takes_too_long_is_refused_and_its_process_ends(endless: Path) -> None:
    with pytest.raises(InvalidRequest, match="too long to read"):
        asyncio.run(
            checks(file_check_seconds=0.5).check("t", endless, "a.csv", endless.with_name("rows"))
        )
    assert children() == []


def test_a_file_that_needs_too_much_processor_time_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "raw").open("wb") as file:
        for number in range(600_000):
            file.write(b'{"prompt": "q%d", "completion": "a"}\n' % number)
    with pytest.raises(InvalidRequest, match="too long to read"):
        asyncio.run(
            checks(file_check_cpu_seconds=1).check(
                "t", tmp_path / "raw", "a.jsonl", tmp_path / "rows.jsonl"
            )
        )


def test_a_tenant_waits_for_its_own_file_and_the_others_for_a_place(endless: Path) -> None:
    pool = checks(file_checks=1, file_check_wait_seconds=0.2)

    async def storm() -> None:
        first = asyncio.create_task(pool.check("a", endless, "a.csv", endless.with_name("rows")))
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await pool.check("a", endless, "a.csv", endless.with_name("rows"))
        with pytest.raises(UpstreamUnavailable):
            await pool.check("b", endless, "a.csv", endless.with_name("rows"))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(storm())
    wait_until(lambda: children() == [], "a check that nobody waits for has ended")
