"""``tailor demo``: the whole main job on real parts, from an empty folder to a table of answers.

Starts a stack of its own in a fresh folder on a free port, and stops it whatever happens.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.client import AdminClient, client_of, served_base
from cli.connection import Connection, find_admin_connection
from cli.console import console
from cli.demo_report import ask_all, print_answers, print_last_line, print_loss_curve
from cli.errors import CommandFailed
from cli.signals import ignore_signals, interrupt_on_signals
from cli.watch import duration, summarise, watch
from examples.datasets import Data, DataSet, data_set

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

STOP_SECONDS = 90


def demo(
    data: Annotated[Data, typer.Option(help="Which example to train.")] = Data.COMPANY,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training job.")] = 1,
) -> None:
    """Train an example company's model on a stack of its own and compare it with the base model."""
    out = console()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tailor-demo-data-") as scratch, _stack(out) as at:
        examples = data_set(data, Path(scratch))
        base, tuned = _train_and_ask(out, at, examples, seed)
    out.print(f"done in {duration(time.monotonic() - began)}")
    print_last_line(examples, base, tuned)


def _train_and_ask(
    out: Console, at: Connection, examples: DataSet, seed: int
) -> tuple[list[str], list[str]]:
    """Do the main job; return the base model's answers and the tuned model's."""
    with AdminClient(at) as admin:
        key = admin.create_tenant(examples.tenant)["api_key"]
    out.print(f"created tenant {examples.tenant}")
    with client_of(Connection(at.base_url, key)) as client:
        job = _train(out, client, examples, seed)
        print_loss_curve(out, client, job.id)
        models = [job.model, job.fine_tuned_model or ""]
        out.print(f"asking {len(examples.questions)} held-out questions of both models …")
        base, tuned = ask_all(client, models, examples)
    print_answers(out, examples, base, tuned)
    return base, tuned


def _train(out: Console, client: "OpenAI", examples: DataSet, seed: int) -> "FineTuningJob":
    with examples.training_file.open("rb") as stream:
        file = client.files.create(file=(examples.training_file.name, stream), purpose="fine-tune")
    out.print(f"uploaded {file.filename} as {file.id}")
    job = client.fine_tuning.jobs.create(
        model=served_base(client), training_file=file.id, seed=seed, suffix="demo"
    )
    out.print(f"created job {job.id} with hyperparameters auto")
    job = watch(client, job.id, out)
    summarise(job, out)
    if job.status != "succeeded":
        raise CommandFailed("the demo's job did not succeed; see above")
    return job


@contextmanager
def _stack(out: Console) -> Iterator[Connection]:
    """Run a stack in a fresh folder; keep the folder, for its logs, only where something failed."""
    interrupt_on_signals()
    folder = Path(tempfile.mkdtemp(prefix="tailor-demo-"))
    try:
        out.print(f"starting a stack in {folder} (about a minute) …")
        _start(folder)
        yield find_admin_connection(folder)
    except BaseException:
        ignore_signals()
        _stop(folder)
        out.print(f"the logs stay in {folder}")
        raise
    _stop(folder)
    # PostgreSQL's home may be a link: it cannot live in a folder that is closed to its account.
    shutil.rmtree((folder / "postgres").resolve(), ignore_errors=True)
    shutil.rmtree(folder)


def _start(folder: Path) -> None:
    """Run ``tailor up``; when interrupted, let it stop what it has started."""
    with _tailor("up", "--detach", "--data-dir", str(folder), "--port", "0") as up:
        try:
            code = up.wait()
        except KeyboardInterrupt:
            up.terminate()
            raise
    if code:
        raise CommandFailed("the stack did not start; see above")


def _stop(folder: Path) -> None:
    with _tailor("down", "--data-dir", str(folder)) as down:
        down.wait(STOP_SECONDS)


def _tailor(*arguments: str) -> "subprocess.Popen[bytes]":
    """Run a ``tailor`` command in a session of its own: Ctrl-C reaches it through us only."""
    return subprocess.Popen([sys.executable, "-m", "cli.main", *arguments], start_new_session=True)
