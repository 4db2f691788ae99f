"""A job of 100,000 rows (200 MB): upload, check and the first steps, with each process's memory.

The real processes, one after the other: an API over a PostgreSQL of its own with the child that
reads the upload, the scheduler's checker, and the trainer, which is ended after ``--steps``.
Printed is a table in Markdown. No process may take more than 1.5 GB beyond the base model, and none
may grow with the rows.

    python -m benchmarks.big_job --rows 10000 100000 --steps 50
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx

from benchmarks.processes import Watch
from services.scheduler.checker import COMMAND, Checker, checker_environment
from services.scheduler.checking.spec import CheckSpec
from services.scheduler.settings import SchedulerSettings
from services.worker.spec import ErrorMessage, TrainSpec, trainer_message
from shared.catalog import load_catalog
from shared.db import make_engine
from shared.jobs.hyperparameters import Hyperparameters
from shared.storage import LocalStore
from shared.tenants.admin import install_admin_key
from shared.tenants.keys import new_secret
from tests.conftest import Database, running_postgres

BASE = "smollm2-135m-instruct"
API, FILE_CHECK = "services.api", "shared.files.check_process"
CHECKER, TRAINER = "services.scheduler.checking", "services.worker.training"
WORDS = """
    the a of for with and before after when every customer order invoice return shelf warranty
    part code office kiln door switch heater board sensor fan trolley panel cover window pump
    delivery price serial manual repair spare 棚 倉庫 営業時間 返品 送料 電話 保証 部品
""".split()  # noqa: SIM905  as a list it is forty lines
CLAUSES, CLAUSE_WORDS, ROW_CLAUSES = 2_000, 8, 40
"""Make rows of about 2 kB, fast."""
VALIDATION_ROWS = 8
UPLOAD_SECONDS = 900


def write_rows(path: Path, rows: int) -> None:
    """Write a training file of rows of about 2 kB, each with a short answer of its own."""
    draw = random.Random(1)
    clauses = [" ".join(draw.choices(WORDS, k=CLAUSE_WORDS)) for _ in range(CLAUSES)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, rows + 1):
            question = f"{number}: {', '.join(draw.choices(clauses, k=ROW_CLAUSES))}?"
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": f"Code {draw.randrange(10**6)}"},
            ]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


@contextmanager
def running_api(folder: Path, database: Database, models: Path) -> Iterator[httpx.Client]:
    """Run an API; yield a client with a tenant's key."""
    admin_key = new_secret(admin=True)
    system = make_engine(database.system_url)
    install_admin_key(system, admin_key)
    system.dispose()
    port = 18_000 + secrets.randbelow(2_000)
    environment = os.environ | {
        "TAILOR_DATABASE_URL": database.api_url,
        "TAILOR_SYSTEM_DATABASE_URL": database.system_url,
        "TAILOR_BROKER_URL": "redis+socket:///nonexistent/valkey.sock",
        "TAILOR_STORE_DIR": str(folder / "data"),
        "TAILOR_MODELS_DIR": str(models.absolute()),
        "TAILOR_INFERENCE_SECRET": secrets.token_hex(8),
        "TAILOR_CACHE_SALT_KEY": secrets.token_hex(8),
        "TAILOR_API_PORT": str(port),
        "TAILOR_LOG_LEVEL": "WARNING",
    }
    api = subprocess.Popen([sys.executable, "-m", API], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=UPLOAD_SECONDS) as http:
            answer = _made_tenant(http, admin_key, api)
            http.headers["authorization"] = f"Bearer {answer['api_key']}"
            yield http
    finally:
        api.terminate()
        api.wait()


def _made_tenant(
    http: httpx.Client, admin_key: str, api: "subprocess.Popen[bytes]"
) -> dict[str, str]:
    headers = {"authorization": f"Bearer {admin_key}"}
    while api.poll() is None:
        with contextlib.suppress(httpx.ConnectError):
            answer = http.post("/admin/tenants", headers=headers, json={"name": "big"})
            return dict(answer.raise_for_status().json())
        time.sleep(0.1)
    raise SystemExit("the API has ended")


def upload(http: httpx.Client, path: Path) -> str:
    """Upload a file; return its id."""
    with path.open("rb") as file:
        answer = http.post(
            "/v1/files", files={"file": (path.name, file)}, data={"purpose": "fine-tune"}
        )
    if answer.is_error:
        raise SystemExit(answer.text)
    return str(answer.json()["id"])


def check(rows: Path, models: Path) -> None:
    """Check a file as the scheduler does when a job is created with it."""
    settings = SchedulerSettings.model_fields
    memory_mb = settings["validation_memory_mb"].default
    seconds = settings["validation_seconds"].default
    entry = load_catalog().get(BASE)
    spec = CheckSpec(
        job_id="ftjob-big",
        base_model=BASE,
        base_folder=entry.folder(models).absolute(),
        context_length=entry.context_length,
        training_rows=rows,
        validation_rows=None,
        n_epochs=1,
        cpu_seconds=seconds,
    )
    checker = Checker(COMMAND, checker_environment(os.environ), memory_mb)
    try:
        result = checker.check(spec, seconds, 0.25, lambda: True)
    finally:
        checker.kill()
    print("report:", result.report.model_dump_json(exclude={"findings"}))
    print("findings:", {f.kind: f.count for f in result.report.findings})


def train(rows: Path, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Train the first steps; return the seconds until the data was read, the first and last.

    It validates on a few of the rows: the base model's own figures come before the first step.
    """
    held = folder / "held.jsonl"
    with rows.open(encoding="utf-8") as lines, held.open("w", encoding="utf-8") as out:
        out.writelines(islice(lines, VALIDATION_ROWS))
    entry = load_catalog().get(BASE)
    spec = TrainSpec(
        job_id="ftjob-big",
        attempt=1,
        base_model=BASE,
        base_dir=entry.folder(options.models).absolute(),
        base_sha256=entry.base_sha256,
        train_rows=rows,
        validation_rows=held,
        attempt_dir=folder / "attempt",
        resume_from=(),
        hyperparameters=Hyperparameters(
            n_epochs=1,
            batch_size=4,
            learning_rate_multiplier=1,
            learning_rate=1e-3,
            rank=16,
            alpha=32,
            early_stopping_patience=2,
        ),
        seed=1,
        checkpoint_seconds=120,
        threads=options.threads,
    )
    command = [sys.executable, "-m", TRAINER, "--parent", str(os.getpid())]
    trainer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        return _follow(trainer, spec, options.steps, options.train_seconds)
    finally:
        trainer.kill()
        trainer.wait()


def _follow(
    trainer: "subprocess.Popen[str]", spec: TrainSpec, steps: int, most_seconds: float
) -> dict[str, float]:
    assert trainer.stdin
    assert trainer.stdout
    began, found = time.monotonic(), {}
    trainer.stdin.write(spec.model_dump_json() + "\n")
    trainer.stdin.flush()
    for line in trainer.stdout:
        message, now = trainer_message.validate_json(line), time.monotonic()
        if isinstance(message, ErrorMessage):
            raise SystemExit(message.message)
        if message.kind == "started":
            found["data read"] = now - began
        if message.kind == "progress":
            found.setdefault("first step", now - began)
            done = message.metrics.step
            if done == min(steps, message.total_steps) or now - began > most_seconds:
                return found | {f"step {done}": now - began}
    raise SystemExit("the trainer has ended")


def measure(rows: int, options: argparse.Namespace) -> list[str]:
    """Take a file of ``rows`` rows through all processes; return the table's lines."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as name, Watch() as watch:
        folder, seconds = Path(name), dict[str, str]()
        path = folder / "train.jsonl"
        write_rows(path, rows)
        with (
            running_postgres() as server,
            server.fresh_database() as database,
            running_api(folder, database, options.models) as http,
        ):
            began = time.monotonic()
            file_id = upload(http, path)
            seconds[API] = seconds[FILE_CHECK] = f"{time.monotonic() - began:.0f}"
        checked = (LocalStore(folder / "data").upload(file_id) / "rows.jsonl").absolute()
        began = time.monotonic()
        check(checked, options.models)
        seconds[CHECKER] = f"{time.monotonic() - began:.0f}"
        if options.steps:
            times = train(checked, folder, options)
            seconds[TRAINER] = ", ".join(f"{what} {s:.0f}" for what, s in times.items())
        size = path.stat().st_size / 1e6
    return [
        f"| {rows:,} ({size:.0f} MB) | `{module}` | {watch.peaks[module].resident / 1e6:.0f} "
        f"| {watch.peaks[module].anonymous / 1e6:.0f} "
        f"| {watch.peaks[module].processor_seconds:.0f} | {seconds[module]} |"
        for module in seconds
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--steps", type=int, default=50, help="0: leave the trainer out")
    parser.add_argument("--train-seconds", type=float, default=1800, help="then it is ended")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--models", type=Path, default=Path(".models"))
    parser.add_argument("--scratch", type=Path, help="folder for all files")
    options = parser.parse_args()
    lines = [line for rows in options.rows for line in measure(rows, options)]
    base = sum(p.stat().st_size for p in (options.models / BASE).rglob("*.safetensors")) / 1e6
    print(f"\nBase model: {base:.0f} MB. Load: {os.getloadavg()[0]:.1f}.\n")
    print("| rows | process | peak memory, MB | of it anonymous, MB | processor, s | seconds |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
