"""Runs one vLLM: starts it, watches it, starts it again; never two at a time.

Each start gets a process group and a scratch folder of its own. A dead process of the group, or an
engine that shows no progress, ends the whole group before the next start; adapters come back by
themselves on their next request.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from services.inference.command import vllm_command, vllm_environment
from services.inference.health import Probe, Watch
from services.inference.registration import Registration
from services.inference.reports import Reports
from services.inference.settings import InferenceSettings
from shared.catalog import BaseModelEntry
from shared.processes import (
    Process,
    end_group,
    end_recorded_group,
    group_members,
    record_group,
)
from shared.telemetry import log_event

_logger = logging.getLogger(__name__)
_TICK_SECONDS = 0.5
_BACKOFF_SECONDS = (1, 2, 5, 15, 60)
"""Between starts that never became ready; an engine that has served is replaced at once."""


def serve(
    settings: InferenceSettings,
    entry: BaseModelEntry,
    registration: Registration,
    stop: threading.Event,
) -> None:
    """Keep one engine serving until ``stop`` is set; ends what an earlier run left behind first."""
    settings.inference_state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    end_recorded_group(settings.inference_state_dir)
    registration.start()
    try:
        _keep_serving(settings, entry, registration, stop)
    finally:
        registration.stop()


def _keep_serving(
    settings: InferenceSettings,
    entry: BaseModelEntry,
    registration: Registration,
    stop: threading.Event,
) -> None:
    failures = 0
    while not stop.is_set():
        with _vllm(settings, entry) as engine:
            reason = _watch(engine, settings, entry, registration, stop)
            registration.tell(ready=False)
        if stop.is_set():
            return
        if registration.lost.is_set():
            registration.begin_anew()
        failures = 0 if engine.ready else failures + 1
        pause = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS)) - 1] if failures else 0
        _logger.error(
            "the engine ended and is started again",
            extra=log_event("engine_ended", reason=reason, pause_seconds=pause),
        )
        stop.wait(pause)


class VllmProcess:
    """One started vLLM: its leader, and who else belongs to it."""

    def __init__(self, leader: subprocess.Popen[bytes], state_dir: Path) -> None:
        self.leader = leader
        self.ready = False
        self._state_dir = state_dir
        self._members: frozenset[Process] = frozenset()
        self._essential: frozenset[Process] = frozenset()

    def note_members(self) -> None:
        """Record the group as it is now, so that a later run can end it."""
        members = group_members(self.leader.pid)
        if members != self._members:
            self._members = members
            record_group(self._state_dir, self.leader.pid, members)

    def became_ready(self) -> None:
        """From now on the death of any process there is now is the engine's death."""
        self.ready = True
        self._essential = self._members

    def death(self) -> str | None:
        """Say which process has died, None while all live."""
        if self.leader.poll() is not None:
            return f"the API process ended with {self.leader.returncode}"
        if dead := self._essential - self._members:
            return f"process {min(dead).pid} died"
        return None


@contextmanager
def _vllm(settings: InferenceSettings, entry: BaseModelEntry) -> Iterator[VllmProcess]:
    """Start vLLM in its own group; on leaving, group, record and scratch files are gone."""
    state_dir = settings.inference_state_dir
    Reports(state_dir).clear()
    with _scratch_folder(state_dir) as scratch:
        command = vllm_command(settings, entry)
        _logger.info("starting vLLM", extra=log_event("engine_starting", command=command))
        leader = subprocess.Popen(
            [sys.executable, "-m", "services.inference.launch", str(os.getpid()), *command],
            env=vllm_environment(settings, scratch),
            start_new_session=True,
        )
        engine = VllmProcess(leader, state_dir)
        try:
            engine.note_members()
            yield engine
        finally:
            leader.terminate()
            with suppress(subprocess.TimeoutExpired):
                leader.wait(settings.inference_stop_seconds)
            end_group(leader.pid)
            leader.wait()
            end_recorded_group(state_dir)


def _watch(
    engine: VllmProcess,
    settings: InferenceSettings,
    entry: BaseModelEntry,
    registration: Registration,
    stop: threading.Event,
) -> str:
    """Return why the engine must be ended, or when ``stop`` is set."""
    url = f"http://{settings.inference_host}:{settings.inference_port}"
    secret = settings.inference_secret.get_secret_value()
    with closing(Probe(url, secret, entry.name)) as probe:
        return _observe(probe, engine, settings, registration, stop)


def _observe(
    probe: Probe,
    engine: VllmProcess,
    settings: InferenceSettings,
    registration: Registration,
    stop: threading.Event,
) -> str:
    reports = Reports(settings.inference_state_dir)
    began = next_look = time.monotonic()
    watch = Watch(settings.inference_hang_seconds, alive_at=began)
    while not stop.wait(_TICK_SECONDS):
        engine.note_members()
        if reason := engine.death():
            return reason
        if registration.lost.is_set():
            return "it was given up on, and may hold what has been erased"
        now = time.monotonic()
        if not engine.ready and now - began > settings.inference_start_seconds:
            return "it did not become ready"
        if engine.ready and watch.hung(now):
            return f"no token for {settings.inference_hang_seconds:.0f} s"
        if now < next_look:
            continue
        if _alive(probe, watch):
            reports.write("canary")
            registration.tell(ready=True)
            if not engine.ready:
                engine.became_ready()
                _logger.info(
                    "ready",
                    extra=log_event("engine_ready", seconds=round(time.monotonic() - began, 1)),
                )
        next_look = now + (settings.inference_canary_seconds if engine.ready else 0)
    return "asked to stop"


def _alive(probe: Probe, watch: Watch) -> bool:
    """Look for proof of life; a canary is sent only where the counters stand still."""
    tokens = probe.tokens()
    if tokens is None:
        return False
    if watch.progressed(tokens, time.monotonic()):
        return True
    if probe.canary():
        watch.answered(time.monotonic())
        return True
    return False


@contextmanager
def _scratch_folder(state_dir: Path) -> Iterator[Path]:
    """Yield a folder with a path short enough for sockets; one left behind earlier is removed."""
    note = state_dir / "scratch"
    if note.exists():
        shutil.rmtree(note.read_text(), ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="tailor-vllm-"))
    note.write_text(str(folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink()
