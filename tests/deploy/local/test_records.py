"""Leftovers are ended by their record, and nobody else is ever touched."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.local.launch import LaunchSpec, write_spec
from deploy.local.records import end, leader_lives
from shared.processes import GroupRecord, Process, living_members, read_record
from tests.conftest import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(600)",
    *SLEEP,
]


@pytest.fixture
def launched(tmp_path) -> Iterator[tuple[subprocess.Popen[bytes], GroupRecord]]:
    """A launched program with one child in its group."""
    process = launch(tmp_path, PARENT)
    record = wait_for_record(tmp_path, process)
    wait_until(lambda: len(living_members(record)) == 2, "the program's child")
    yield process, record
    for member in living_members(record):
        os.kill(member.pid, signal.SIGKILL)
    process.communicate()


def launch(tmp_path, argv: list[str], **env: str) -> subprocess.Popen[bytes]:
    spec = LaunchSpec(argv, env, str(tmp_path), str(tmp_path / "record.json"))
    write_spec(tmp_path / "spec.json", spec)
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.local.launch", str(tmp_path / "spec.json")],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )


def output_of(process: subprocess.Popen[bytes]) -> str:
    shown, _ = process.communicate(timeout=30)
    return shown.decode()


def wait_for_record(tmp_path, process: subprocess.Popen[bytes]) -> GroupRecord:
    path = tmp_path / "record.json"
    wait_until(path.exists, "the record")
    record = read_record(path)
    assert record is not None
    assert record.pgid == process.pid
    return record


def test_a_launched_program_has_exactly_the_environment_of_its_spec(tmp_path):
    show = [sys.executable, "-c", "import os; print(sorted(os.environ), end='')"]
    shown = output_of(launch(tmp_path, show, LC_ALL="C.UTF-8", 秘密="値"))
    assert shown == str(sorted(["LC_ALL", "秘密"]))
    assert (tmp_path / "spec.json").stat().st_mode & 0o777 == 0o600


def test_a_program_that_keeps_dying_is_started_once_a_second(tmp_path):
    # Not Python: how long that takes to start varies by a tenth of a second and more.
    show = ["/bin/date", "+%s.%N"]
    first, second = (float(output_of(launch(tmp_path, show))) for _ in range(2))
    assert second - first > 0.9


@pytest.mark.slow
def test_a_leftover_group_is_ended_with_its_children(launched):
    process, record = launched
    end(record, signal.SIGTERM, grace_seconds=5)
    process.wait(5)
    assert not living_members(record)


def test_members_are_ended_also_when_their_leader_is_dead(launched):
    process, record = launched
    process.kill()
    process.wait()
    assert not leader_lives(record)
    assert len(living_members(record)) == 1
    end(record, signal.SIGTERM, grace_seconds=5)
    assert not living_members(record)


def test_a_reused_number_is_never_signalled(launched):
    process, record = launched
    members = tuple(Process(m.pid, m.started - 1) for m in record.members)
    earlier = dataclasses.replace(record, members=members)
    assert not leader_lives(earlier)
    end(earlier, signal.SIGKILL, grace_seconds=1)
    assert process.poll() is None


def test_a_group_of_another_program_is_never_signalled_even_without_its_leader(launched):
    process, record = launched
    process.kill()
    process.wait()
    foreign = dataclasses.replace(record, program="/usr/bin/true")
    end(foreign, signal.SIGKILL, grace_seconds=1)
    assert len(living_members(record)) == 1


def test_a_record_of_an_earlier_boot_means_nothing(launched):
    process, record = launched
    end(dataclasses.replace(record, boot="earlier"), signal.SIGKILL, grace_seconds=1)
    assert process.poll() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pgid": 1}'])
def test_a_damaged_record_is_no_record(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    assert read_record(tmp_path / "record.json") is None
