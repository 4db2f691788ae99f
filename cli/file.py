"""``tailor file``: check training data without a server, and upload it."""

from pathlib import Path
from typing import Annotated

import typer

from cli.client import openai_client
from cli.errors import CommandFailed
from cli.options import DataDir

app = typer.Typer(help="Training files.", no_args_is_help=True)

DataFile = Annotated[Path, typer.Argument(help="JSONL, CSV or XLSX.", show_default=False)]


@app.command()
def check(path: DataFile) -> None:
    """Validate a file as an upload would, without a server."""
    from shared.files.rows import MIN_ROWS, validate  # noqa: PLC0415  reads workbooks: slow to import

    report = validate(_existing(path), path.name)
    for problem in report.errors:
        typer.echo(f"{problem}", err=True)
    for problem in report.warnings:
        typer.echo(f"{problem} (warning)", err=True)
    if not report.ok:
        more = " or more" if report.truncated else ""
        raise CommandFailed(
            f"{path} cannot be used: {len(report.errors)}{more} error(s), see above"
        )
    if report.rows < MIN_ROWS:
        raise CommandFailed(f"{path} has {report.rows} row(s); a job needs at least {MIN_ROWS}")
    typer.echo(f"{path}: {report.rows} rows in {report.format} form, no errors")


@app.command()
def upload(path: DataFile, data_dir: DataDir = None) -> None:
    """Upload a training file and print its id."""
    typer.echo(upload_file(path, data_dir))


def upload_file(path: Path, data_dir: Path | None) -> str:
    """Upload ``path`` for fine-tuning; return its id, or raise with what is wrong in it."""
    with openai_client(data_dir) as client, _existing(path).open("rb") as stream:
        stored = client.files.create(file=(path.name, stream), purpose="fine-tune")
    if stored.status == "error":
        raise CommandFailed(stored.status_details or f"{path} cannot be used")
    return stored.id


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CommandFailed(f"{path} does not exist or is not a file")
    return path
