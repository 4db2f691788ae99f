"""Compose and the Dockerfiles start the same processes as the local stack, read as plain data."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from deploy.local import programs
from deploy.local.data_folder import DataFolder, Secrets
from deploy.local.postgres import Postgres
from deploy.local.readiness import ready
from tests.deploy.settings_classes import environment_names

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILES = {name: ROOT / f"deploy/docker/{name}.Dockerfile" for name in programs.SERVICES}
ONE_SHOTS = {"migrate": "shared.db.migrate", "admin": "shared.tenants.admin"}
OURS = (*programs.SERVICES, *ONE_SHOTS)
SAME_AS = {programs.POSTGRES: "postgres", programs.VALKEY: "redis"}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Postgres:
    """One that is never started."""
    place = tmp_path_factory.mktemp("postgres")
    return Postgres(place / "bin", place / "data", place / "sockets", account=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return DataFolder(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="module")
def wiring(postgres: Postgres, folder: DataFolder) -> programs.Wiring:
    return wire(postgres, folder, api_port=8000, inference_port=8001)


@pytest.fixture(scope="module")
def local_settings(folder: DataFolder, wiring: programs.Wiring) -> dict[str, dict[str, str]]:
    return programs.service_settings(folder, secrets(), wiring)


def secrets() -> Secrets:
    return Secrets(**dict.fromkeys(Secrets.__dataclass_fields__, "not-secret"))


def wire(
    postgres: Postgres, folder: DataFolder, *, api_port: int, inference_port: int
) -> programs.Wiring:
    return programs.wire(
        postgres,
        folder.sockets,
        secrets(),
        api_host="127.0.0.1",
        models_dir=Path("/models"),
        api_port=api_port,
        replicas=programs.replicas(["smollm2-135m-instruct"], [inference_port]),
        scheduler_metrics_port=9100,
        worker_metrics_port=9101,
    )


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE["services"][SAME_AS.get(name, name)]
    return found


def variables(name: str) -> dict[str, str | None]:
    """Return a compose service's own variables; None where .env may add one."""
    return {
        key: value
        for key, value in service(name)["environment"].items()
        if key.startswith("TAILOR_")
    }


def test_compose_has_the_local_stacks_programs_and_its_two_one_shots() -> None:
    expected = {SAME_AS.get(name, name) for name in programs.NAMES} | set(ONE_SHOTS)
    assert set(COMPOSE["services"]) == expected


@pytest.mark.parametrize("name", programs.SERVICES)
def test_a_service_runs_the_command_of_the_local_stack(
    name: str,
    folder: DataFolder,
    postgres: Postgres,
    local_settings: dict[str, dict[str, str]],
) -> None:
    table = programs.programs(folder, postgres, folder.sockets, programs.NAMES, local_settings)
    local = next(program.spec.argv for program in table if program.name == name)
    assert local[0] == sys.executable
    assert service(name)["command"] == ["python", *local[1:]]


@pytest.mark.parametrize(("name", "module"), ONE_SHOTS.items())
def test_a_one_shot_runs_once_and_its_module_exists(name: str, module: str) -> None:
    assert service(name)["command"] == ["python", "-m", module]
    assert service(name)["restart"] == "no"
    assert find_spec(module) is not None


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_given_the_settings_of_the_local_stack_and_no_others(
    name: str, local_settings: dict[str, dict[str, str]]
) -> None:
    given = {key for key, value in variables(name).items() if value is not None}
    assert given == set(local_settings[name])


@pytest.mark.parametrize("name", OURS)
def test_every_other_setting_of_a_service_can_be_given_in_env(name: str) -> None:
    module = ONE_SHOTS.get(name) or f"{programs.MODULES[name]}.settings"
    assert set(variables(name)) == environment_names(module)


@pytest.mark.parametrize("name", programs.NAMES)
def test_a_service_may_take_as_long_to_stop_as_in_the_local_stack(name: str) -> None:
    _signal, seconds = programs.STOP[name]
    assert service(name)["stop_grace_period"] == f"{seconds}s"


def test_no_secret_has_a_default_and_each_is_required() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secret = re.compile(r"\$\{(\w*(?:PASSWORD|SECRET|KEY)\w*)(\S*)")
    found = secret.findall(text)
    assert found
    assert [name for name, rest in found if not rest.startswith(":?")] == []


def test_only_the_api_is_reachable_from_outside() -> None:
    open_services = {name for name, spec in COMPOSE["services"].items() if "ports" in spec}
    assert open_services == {"api"}
    assert COMPOSE["networks"]["inside"]["internal"]


@pytest.mark.parametrize("name", [programs.API, programs.INFERENCE])
@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_asks_what_the_local_stack_asks_and_believes_the_same_answer(
    name: str, status: int, postgres: Postgres, folder: DataFolder
) -> None:
    with recording_server(status) as (port, paths):
        wiring = wire(postgres, folder, api_port=port, inference_port=port)
        locally = ready(name, wiring, {"statename": "RUNNING", "start": 0})
        composed = run_health_check(name, port)
    assert paths[0] == paths[1]
    assert locally == composed == (status == 200)


@pytest.mark.parametrize(("name", "program"), [("postgres", "pg_isready"), ("redis", "redis-cli")])
def test_the_servers_are_asked_by_their_own_tools(name: str, program: str) -> None:
    assert service(name)["healthcheck"]["test"][:2] == ["CMD", program]


def run_health_check(name: str, port: int) -> bool:
    """Run the compose file's check here, against ``port``."""
    settings = variables(name)
    kind, _python, *arguments = service(name)["healthcheck"]["test"]
    assert kind == "CMD"
    inside = settings["TAILOR_API_PORT" if name == programs.API else "TAILOR_INFERENCE_PORT"]
    command = [argument.replace(f":{inside}/", f":{port}/") for argument in arguments]
    assert command != arguments
    done = subprocess.run([sys.executable, *command], capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def recording_server(status: int) -> Iterator[tuple[int, list[str]]]:
    """Serve ``status`` on every path and note which was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, paths
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
