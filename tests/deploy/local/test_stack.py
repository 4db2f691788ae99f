"""``tailor up``, ``down``, ``status`` and ``logs`` on real parts (vLLM stands aside)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import text

from deploy.local.programs import NAMES
from shared.db import make_engine
from tests.conftest import wait_until
from tests.running_stack import REPOSITORY, RunningStack

ALL = [*NAMES, "supervisord"]
READABLE = text(
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
    "AND has_column_privilege(quote_ident(table_name), column_name, 'SELECT')"
)


def refused(stack: RunningStack, *arguments: str, **settings: str) -> str:
    """Run a command that must fail; return what it says."""
    done = stack.run(*arguments, **settings)
    assert done.returncode not in {0, None}
    assert "Traceback" not in done.stdout
    return " ".join(done.stdout.split())


def processes_of(stack: RunningStack) -> list[psutil.Process]:
    """Every process of the stack: the recorded leaders and all below them."""
    found = []
    for name in ALL:
        pid = stack.pid_of(name)
        if pid is not None:
            leader = psutil.Process(pid)
            found += [leader, *leader.children(recursive=True)]
    return list(dict.fromkeys(found))


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that only waits to be reaped has ended."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_status_tells_state_process_uptime_address_and_version_of_each_service(light_stack):
    wait_until(light_stack.is_ready, "the stack is ready")
    status = json.loads(light_stack.command("status", "--json"))
    assert list(status["services"]) == list(NAMES)
    assert status["url"] == light_stack.base_url
    for name, service in status["services"].items():
        assert service["state"] == "ready", name
        assert service["pid"] == light_stack.pid_of(name)
        assert service["version"]
    assert "worker" in light_stack.command("status")


def test_commands_find_the_address_and_the_administrators_key_in_the_data_folder(light_stack):
    made = json.loads(light_stack.command("tenant", "create", "カモメ商事", "--json"))
    answer = httpx.get(
        f"{light_stack.base_url}/models", headers={"Authorization": f"Bearer {made['api_key']}"}
    )
    assert answer.status_code == 200


def test_secrets_are_private_and_stand_in_no_command_line_and_no_log(light_stack):
    secrets = light_stack.data_dir / "secrets"
    assert secrets.stat().st_mode & 0o777 == 0o700
    values = []
    for path in secrets.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        values.append(path.read_text())
    assert len(set(values)) == 9
    shown = [" ".join(process.cmdline()) for process in processes_of(light_stack)]
    shown += [path.read_text() for path in (light_stack.data_dir / "logs").iterdir()]
    assert not [value for value in values if any(value in text for text in shown)]


def test_the_inference_service_is_kept_from_the_broker_and_from_what_tenants_have(light_stack):
    environment = psutil.Process(light_stack.pid_of("inference")).environ()
    given = {name for name in environment if name.startswith("TAILOR_")}
    assert not {name for name in given if "BROKER" in name}
    assert {name for name in given if "DATABASE" in name} == {"TAILOR_INFERENCE_DATABASE_URL"}
    engine = make_engine(environment["TAILOR_INFERENCE_DATABASE_URL"])
    with engine.connect() as connection:
        readable = connection.execute(READABLE).all()
    engine.dispose()
    columns = {(table, column) for table, column in readable if table != "inference_replicas"}
    assert columns == {("adapters", "id"), ("adapters", "deleted_at")}


def test_prometheus_finds_the_metrics_by_a_file_and_reads_them_with_the_secret(light_stack):
    groups = json.loads((light_stack.data_dir / "prometheus-targets.json").read_bytes())
    targets = {group["labels"]["service"]: group["targets"][0] for group in groups}
    assert set(targets) == {"scheduler", "worker", "inference"}
    headers = {"Authorization": f"Bearer {light_stack.metrics_secret}"}
    for service, metric in {"scheduler": "tailor_workers", "worker": "tailor_leases_lost"}.items():
        url = f"http://{targets[service]}/metrics"
        # A worker is ready a moment before its child has opened the port.
        asked = partial(httpx.get, url, headers=headers)
        wait_until(asked, service, (httpx.ConnectError,))
        assert metric in asked().text


def test_a_second_up_on_the_folder_is_refused(light_stack):
    assert "already running" in refused(light_stack, "up", "--detach", "--port", "0")


def test_logs_shows_the_ends_of_all_or_one_and_refuses_an_unknown_name(light_stack):
    assert "database system is ready" in light_stack.command("logs", "postgres")
    assert "worker" in light_stack.command("logs", "--lines", "5")
    assert "There is no service 'mysql'" in refused(light_stack, "logs", "mysql")


@pytest.mark.parametrize("name", NAMES)
def test_a_program_that_dies_is_started_again(light_stack, name):
    pid = light_stack.pid_of(name)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: light_stack.pid_of(name) not in {None, pid}, f"{name} is back")
    wait_until(light_stack.is_ready, "the stack is ready")


def test_after_sigkill_of_everything_up_starts_again_and_keeps_the_data(light_stack):
    made = json.loads(light_stack.command("tenant", "create", "復活", "--json"))
    for process in processes_of(light_stack):
        process.kill()
    light_stack.up()
    answer = httpx.get(
        f"{light_stack.base_url}/models", headers={"Authorization": f"Bearer {made['api_key']}"}
    )
    assert answer.status_code == 200


def test_up_ends_what_a_killed_supervisor_left_behind(light_stack):
    before = processes_of(light_stack)
    os.kill(light_stack.pid_of("supervisord"), signal.SIGKILL)
    wait_until(lambda: light_stack.pid_of("supervisord") is None, "the supervisor is gone")
    status = json.loads(light_stack.command("status", "--json"))
    assert status["state"] == status["services"]["api"]["state"] == "unsupervised"
    light_stack.up()
    assert alive(before) == []


def test_down_waits_for_a_supervisor_that_is_ending_by_itself(fresh_stack):
    fresh_stack.up()
    own = processes_of(fresh_stack)
    os.kill(fresh_stack.pid_of("supervisord"), signal.SIGTERM)
    fresh_stack.down()
    assert alive(own) == []


def test_two_stacks_run_side_by_side_and_down_stops_only_its_own(light_stack, fresh_stack):
    fresh_stack.up()
    assert fresh_stack.base_url != light_stack.base_url
    assert fresh_stack.is_ready()
    own = processes_of(fresh_stack)
    began = time.monotonic()
    fresh_stack.down()
    assert time.monotonic() - began < 30  # 10 s, and the command's own start on a busy machine
    assert alive(own) == []
    left = [str(p.relative_to(fresh_stack.data_dir)) for p in fresh_stack.data_dir.rglob("*")]
    assert not [name for name in left if "sock" in name or name.endswith(".pid")]
    assert list(fresh_stack.data_dir.glob("*.json")) == []
    assert fresh_stack.run("status").returncode == 3
    assert "nothing runs" in fresh_stack.command("down")
    assert light_stack.is_ready()


def test_a_busy_port_is_a_sentence_before_anything_starts(fresh_stack):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port} on 127.0.0.1 is busy" in refused(fresh_stack, "up", "--port", port)
    assert not (fresh_stack.data_dir / "postgres").exists()


def test_missing_weights_are_a_sentence(fresh_stack):
    said = refused(fresh_stack, "up", "--port", "0", TAILOR_MODELS_DIR="/nowhere")
    assert "run `make setup`" in said


def test_a_folder_that_cannot_be_written_is_a_sentence(fresh_stack):
    fresh_stack.data_dir.rmdir()
    fresh_stack.data_dir.write_text("a file, no folder")
    assert "Cannot write below" in refused(fresh_stack, "up", "--port", "0")
    fresh_stack.data_dir.unlink()


def test_a_service_that_cannot_start_shows_the_end_of_its_log_and_nothing_is_left(fresh_stack):
    said = refused(fresh_stack, "up", "--detach", "--port", "0", LIGHT_INFERENCE="broken")
    assert "inference did not start" in said
    assert "libnuma.so.1: 見つかりません" in said
    assert [name for name in ALL if fresh_stack.pid_of(name)] == []


def in_the_foreground(stack: RunningStack) -> subprocess.Popen[str]:
    """Start a stack with its logs on a pipe and return once all is ready."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cli.main", "up", "--port", "0"),
            *("--data-dir", str(stack.data_dir)),
        ],
        cwd=REPOSITORY,
        env={**os.environ, **stack.settings, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    output = process.stdout
    assert output is not None
    try:
        # A whole start, beside other tests.
        what = "the last line of the start"
        wait_until(lambda: "ready http" in output.readline(), what, seconds=120)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process


def test_in_the_foreground_a_closed_pipe_stops_everything_too(fresh_stack):
    process = in_the_foreground(fresh_stack)
    url = fresh_stack.base_url.removesuffix("/v1") + "/healthz"
    own = processes_of(fresh_stack)
    assert process.stdout is not None
    process.stdout.close()
    with suppress(httpx.HTTPError):  # it may have met the pipe's end already
        httpx.get(url)  # makes a line of log
    process.wait(75)
    assert alive(own) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_shows_the_logs_and_a_signal_stops_everything(fresh_stack, number):
    process = in_the_foreground(fresh_stack)
    url = fresh_stack.base_url.removesuffix("/v1") + "/healthz"
    wait_until(lambda: httpx.get(url) and _mentions(process, "api"), "a line of the API's log")
    own = processes_of(fresh_stack)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=75)
    assert process.returncode == 0
    assert "stopped in" in rest
    assert alive(own) == []


def _mentions(process: subprocess.Popen[str], service: str) -> bool:
    assert process.stdout is not None
    return process.stdout.readline().startswith(service)


def test_an_over_long_data_folder_works_like_any_other(fresh_stack):
    fresh_stack.move_to(Path(fresh_stack.data_dir / "/".join(["長い"] * 20)))
    fresh_stack.up()
    assert fresh_stack.is_ready()
    sockets = (fresh_stack.data_dir / "sockets").readlink()
    fresh_stack.down()
    assert not sockets.exists()
