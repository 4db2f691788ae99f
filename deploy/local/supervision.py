"""supervisord runs the programs: configuration written from plain data, control over a socket.

``startsecs=0`` together with the launcher's one start a second means that a program which dies is
started again for ever, at a constant pace, and never ends in supervisord's FATAL state.
"""

import http.client
import os
import shlex
import socket
import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.data_folder import DataFolder
from deploy.local.errors import StackError
from deploy.local.launch import LaunchSpec, write_spec
from deploy.local.records import leader_lives
from shared.processes import read_record

SUPERVISOR = "supervisord"
START_SECONDS = 15
_SHUTTING_DOWN, _ALREADY_STARTED, _NOT_RUNNING = 6, 60, 70
"""supervisord's fault codes: it answers nothing more, or the program is so already."""


@dataclass(frozen=True)
class Program:
    """One supervised program and how it wants to be stopped."""

    name: str
    spec: LaunchSpec
    stop_signal: str = "TERM"
    stop_seconds: int = 10


class Supervisor:
    """The supervisord of one data folder."""

    def __init__(self, folder: DataFolder, sockets: Path) -> None:
        self._folder = folder
        self._socket = sockets / "supervisor.sock"

    def start(self, programs: list[Program]) -> None:
        """Start supervisord with all ``programs`` stopped; it outlives the caller."""
        for program in programs:
            write_spec(self._folder.spec(program.name), program.spec)
        configuration = self._folder.run / "supervisord.conf"
        configuration.write_text(self._configuration(programs))
        write_spec(self._folder.spec(SUPERVISOR), self._own_spec(configuration))
        errors = self._folder.run / "supervisord.stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                _launch(self._folder.spec(SUPERVISOR)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"supervisord did not start: {errors.read_text().strip()[-500:]}")
            time.sleep(0.05)

    def lives(self) -> bool:
        """Say whether the supervisord that the folder records still runs."""
        record = read_record(self._folder.record(SUPERVISOR))
        return record is not None and leader_lives(record)

    def answers(self) -> bool:
        """Say whether supervisord can be asked."""
        try:
            self._call("getState")
        except StackError:
            return False
        return True

    def start_program(self, name: str) -> None:
        """Start one program and return at once."""
        self._tolerating(_ALREADY_STARTED, "startProcess", name, False)

    def stop_program(self, name: str) -> None:
        """Send one program its stop signal and return at once."""
        self._tolerating(_NOT_RUNNING, "stopProcess", name, False)

    def programs(self) -> dict[str, dict[str, Any]]:
        """Return supervisord's information about every program, by name."""
        return {info["name"]: info for info in self._call("getAllProcessInfo")}

    def shut_down(self) -> None:
        """Tell supervisord to stop whatever still runs and to end; returns at once."""
        self._call("shutdown")

    def wait_for_end(self, seconds: float) -> None:
        """Return when supervisord is gone, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.lives() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _tolerating(self, fault_code: int, method: str, *arguments: Any) -> None:
        try:
            self._call(method, *arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != fault_code:
                raise

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = _UnixTransport(self._socket)
        try:
            with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _SHUTTING_DOWN:
                raise StackError("The stack is just being stopped.") from fault
            raise
        except (OSError, http.client.HTTPException) as error:
            raise StackError("The stack was stopped meanwhile.") from error

    def _own_spec(self, configuration: Path) -> LaunchSpec:
        return LaunchSpec(
            argv=[sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
            env=dict(os.environ),
            cwd=str(self._folder.run),
            record=str(self._folder.record(SUPERVISOR)),
        )

    def _configuration(self, programs: list[Program]) -> str:
        sections = [
            _section(
                "unix_http_server",
                file=self._socket,
                chmod="0700",
            ),
            _section(
                "supervisord",
                nodaemon="true",
                logfile=self._folder.log(SUPERVISOR),
                logfile_maxbytes="5MB",
                logfile_backups=1,
                pidfile=self._folder.run / "supervisord.pid",
                # Saying so silences its warning; programs that must not be root are not.
                **({"user": "root"} if os.geteuid() == 0 else {}),
            ),
            _section(
                "rpcinterface:supervisor",
                **{
                    "supervisor.rpcinterface_factory": (
                        "supervisor.rpcinterface:make_main_rpcinterface"
                    )
                },
            ),
            *(self._program(program, order) for order, program in enumerate(programs)),
        ]
        return "\n".join(sections)

    def _program(self, program: Program, order: int) -> str:
        return _section(
            f"program:{program.name}",
            command=shlex.join(_launch(self._folder.spec(program.name))),
            # Ended from outside, as when the machine shuts down, supervisord stops the last first.
            priority=order,
            autostart="false",
            autorestart="true",
            startsecs=0,
            startretries=1_000_000,
            stopsignal=program.stop_signal,
            stopwaitsecs=program.stop_seconds,
            stopasgroup="false",
            killasgroup="true",
            redirect_stderr="true",
            stdout_logfile=self._folder.log(program.name),
            stdout_logfile_maxbytes="20MB",
            stdout_logfile_backups=3,
        )


def _launch(spec: Path) -> list[str]:
    return [sys.executable, "-m", "deploy.local.launch", str(spec)]


def _section(name: str, **values: object) -> str:
    lines = [f"{key} = {str(value).replace('%', '%%')}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    """supervisor's own transport has no time limit: `tailor status` would wait for ever."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        self._connection = host, connection  # so that close() closes it
        return connection
