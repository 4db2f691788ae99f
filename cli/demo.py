"""``tailor demo``: the whole main job on real parts, from an empty folder to the report.

Starts a stack of its own in a fresh folder on a free port, and stops it whatever happens.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli import compare
from cli.client import AdminClient, client_of, served_base
from cli.compare_report import print_report
from cli.connection import Connection, find_admin_connection
from cli.console import console
from cli.demo_report import ROWS_SHOWN, print_answers, print_last_line, print_loss_curve
from cli.errors import CommandFailed
from cli.signals import ignore_signals, interrupt_on_signals
from cli.watch import duration, summarise, watch
from examples.datasets import Data, DataSet, data_set
from examples.faq_ja.read import FaqMissing
from shared.evidence.arms import Arm
from shared.evidence.page import html
from shared.evidence.report import Report

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

STOP_SECONDS = 90
ARMS = (
    Arm.COPY_BM25,
    Arm.COPY_EMBEDDING,
    Arm.ZERO_SHOT,
    Arm.FEW_SHOT,
    Arm.RETRIEVED_3,
    Arm.RETRIEVED_5,
    Arm.TUNED,
    Arm.TUNED_RETRIEVED_3,
)
"""Those that a demonstration has time for."""


def demo(
    data: Annotated[Data, typer.Option(help="Which example to train.")] = Data.COMPANY,
    seed: Annotated[int, typer.Option(min=0, help="Seed of job and comparison.")] = 1,
    questions: Annotated[int, typer.Option(min=1, max=200, help="Held-out rows to ask.")] = 100,
    page: Annotated[Path | None, typer.Option(help="Write the report as a page, too.")] = None,
    model: Annotated[
        str, typer.Option(help="Base model to train, see `tailor model list`.", show_default=False)
    ] = "",
) -> None:
    """Train an example company's model and compare it with all that needs no training."""
    out = console()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tailor-demo-data-") as scratch:
        try:
            examples = data_set(data, Path(scratch))
        except FaqMissing as missing:
            raise CommandFailed(str(missing)) from None
        with _stack(out, model) as at:
            report = _train_and_compare(out, at, examples, seed, questions)
    out.print()
    print_report(out, report)
    if page:
        page.write_text(html(report, "en"), encoding="utf-8")
    out.print(f"done in {duration(time.monotonic() - began)}")
    print_last_line(report)


def _train_and_compare(
    out: Console, at: Connection, examples: DataSet, seed: int, questions: int
) -> Report:
    """Do the main job; return the comparison's report."""
    with AdminClient(at) as admin:
        key = admin.create_tenant(examples.tenant)["api_key"]
    out.print(f"created tenant {examples.tenant}")
    with client_of(Connection(at.base_url, key)) as client:
        job = _train(out, client, examples, seed)
        print_loss_curve(out, client, job.id)
        comparison_id = compare.create(
            client,
            {
                "job": job.id,
                "held_out_file": _upload(out, client, examples.held_out_file),
                "checker": examples.checker,
                "max_tokens": examples.max_tokens,
                "questions": questions,
                "seed": seed,
                "arms": ARMS,
            },
        )
        out.print(f"comparing on {questions} held-out questions, as {comparison_id}")
        comparison = compare.follow(client, comparison_id, out)
        if comparison["status"] != "succeeded":
            raise CommandFailed("the demo's comparison did not succeed; see above")
        print_answers(out, islice(compare.rows_of(client, comparison_id), ROWS_SHOWN))
        return compare.report_of(client, comparison_id)


def _upload(out: Console, client: "OpenAI", path: Path) -> str:
    with path.open("rb") as stream:
        file = client.files.create(file=(path.name, stream), purpose="fine-tune")
    out.print(f"uploaded {file.filename} as {file.id}")
    return file.id


def _train(out: Console, client: "OpenAI", examples: DataSet, seed: int) -> "FineTuningJob":
    training_file = _upload(out, client, examples.training_file)
    job = client.fine_tuning.jobs.create(
        model=served_base(client), training_file=training_file, seed=seed, suffix="demo"
    )
    out.print(f"created job {job.id} with hyperparameters auto")
    job = watch(client, job.id, out)
    summarise(job, out)
    if job.status != "succeeded":
        raise CommandFailed("the demo's job did not succeed; see above")
    return job


@contextmanager
def _stack(out: Console, model: str) -> Iterator[Connection]:
    """Run a stack in a fresh folder; keep the folder, for its logs, only where something failed."""
    interrupt_on_signals()
    folder = Path(tempfile.mkdtemp(prefix="tailor-demo-"))
    try:
        out.print(f"starting a stack in {folder} (about a minute) …")
        _start(folder, model)
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


def _start(folder: Path, model: str) -> None:
    """Run ``tailor up``; when interrupted, let it stop what it has started."""
    served = ("--model", model) if model else ()
    with _tailor("up", "--detach", "--data-dir", str(folder), "--port", "0", *served) as up:
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
