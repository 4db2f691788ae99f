"""Ending a recorded process group: all of ours, nobody else's."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.processes import (
    Process,
    end_group,
    end_recorded_group,
    group_members,
    record_group,
)

FAMILY = """
import subprocess, sys, time
program = "import time; print('up', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", program])
time.sleep(60)
"""
"""A leader with a child that outlives it."""


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        end_group(process.pid)


def test_a_recorded_group_is_ended_even_when_its_leader_is_dead(
    leader: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    record_group(tmp_path, leader.pid, group_members(leader.pid))
    leader.kill()
    leader.wait()
    assert len(group_members(leader.pid)) == 1
    end_recorded_group(tmp_path)
    assert not group_members(leader.pid)
    assert not list(tmp_path.iterdir())


def test_a_process_that_nobody_has_waited_for_has_ended_all_the_same(
    leader: subprocess.Popen[bytes],
) -> None:
    leader.kill()
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    assert [member.pid for member in group_members(leader.pid)] != []
    assert leader.pid not in {member.pid for member in group_members(leader.pid)}


def test_a_group_whose_number_was_given_to_others_is_left_alone(
    leader: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    earlier = frozenset(Process(m.pid, m.started - 1) for m in group_members(leader.pid))
    record_group(tmp_path, leader.pid, earlier)
    end_recorded_group(tmp_path)
    assert len(group_members(leader.pid)) == 2


def test_a_group_of_an_earlier_boot_is_left_alone(
    leader: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    record_group(tmp_path, leader.pid, group_members(leader.pid))
    path = tmp_path / "group.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))
    end_recorded_group(tmp_path)
    assert len(group_members(leader.pid)) == 2


def test_a_record_cut_short_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "group.json").write_text('{"boot": ')
    end_recorded_group(tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_recorded_is_nothing_to_do(tmp_path: Path) -> None:
    end_recorded_group(tmp_path)


def test_a_launched_program_dies_with_the_one_that_launched_it(tmp_path: Path) -> None:
    launcher = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "services.inference.launch", str(os.getpid()),
    sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"],
    start_new_session=True)
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", launcher], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        child = int((tmp_path / "pid").read_text())
        assert group_members(child)
        process.kill()
    wait_until(lambda: not group_members(child))


def test_a_launched_program_whose_launcher_is_gone_does_not_start() -> None:
    stranger = os.getpid() + 1
    ended = subprocess.run(
        [sys.executable, "-m", "services.inference.launch", str(stranger), "/bin/true"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "parent process has ended" in ended.stderr
