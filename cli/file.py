"""``tailor file``: check training data without a server, and upload it."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from cli.client import openai_client
from cli.console import console
from cli.data_report import print_data_report
from cli.errors import CommandFailed
from cli.options import MODELS, DataDir, ModelsDir
from shared.catalog import load_catalog
from shared.files.report import MIN_ROWS

if TYPE_CHECKING:
    from shared.datareport.analyse import Base

"""Where `make setup` puts the base models."""

DOCUMENTS = {".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml", ".pdf", ".docx"}

app = typer.Typer(help="Training files and documents.", no_args_is_help=True)

DataFile = Annotated[Path, typer.Argument(help="JSONL, CSV or XLSX.", show_default=False)]


@app.command()
def check(
    path: DataFile,
    validation_file: Annotated[Path | None, typer.Option(help="Validation rows, too.")] = None,
    model: Annotated[str, typer.Option(help="Base model; by default the catalog's first.")] = "",
    models_dir: ModelsDir = MODELS,
) -> None:
    """Validate a file as an upload and a job would, without a server, and report what is in it.

    Token figures need the base model's tokenizer in the models' folder.
    """
    from shared.datareport.analyse import analyse  # noqa: PLC0415  its libraries are slow to import

    base = _base(model, models_dir)
    with tempfile.TemporaryDirectory(prefix="tailor-check-") as scratch:
        training = _rows_of(path, Path(scratch) / "training.jsonl", MIN_ROWS)
        validation = (
            _rows_of(validation_file, Path(scratch) / "validation.jsonl", 1)
            if validation_file
            else None
        )
        analysis = analyse(training, validation, base=base)
    print_data_report(analysis.report, console())
    if base is None:
        typer.echo("no token figures: the base model's tokenizer is not here (`make setup`)")
    faulty = {file: rows for file, rows in analysis.refusals.items() if rows.count}
    for rows in faulty.values():
        typer.echo(rows.text(), err=True)
    if faulty:
        raise CommandFailed("a job with these files would fail, see above")
    typer.echo(f"{path}: {analysis.report.training_file.rows} rows, no errors")


def _rows_of(path: Path, rows_path: Path, at_least: int) -> Path:
    """Normalise a file; raise CommandFailed with every problem printed."""
    from shared.files.rows import validate  # noqa: PLC0415  reads workbooks: slow to import

    report = validate(_existing(path), path.name, rows_path)
    for problem in report.errors:
        typer.echo(f"{problem}", err=True)
    for problem in report.warnings:
        typer.echo(f"{problem} (warning)", err=True)
    if not report.ok:
        shown = f"the first {len(report.errors)}" if report.truncated else "see"
        raise CommandFailed(
            f"{path} cannot be used: {report.error_count:,} error(s), {shown} above"
        )
    if report.rows < at_least:
        raise CommandFailed(f"{path} has {report.rows} row(s); a job needs at least {at_least}")
    return rows_path


def _base(model: str, models_dir: Path) -> "Base | None":
    """Return the base model if its tokenizer, and what reads it, are at hand."""
    from shared.datareport.analyse import Base  # noqa: PLC0415  as above

    catalog = load_catalog(models_dir)
    entry = catalog.get(model) if model else next(iter(catalog))
    folder = entry.folder(models_dir)
    if not (folder / "tokenizer.json").is_file() or find_spec("tokenizers") is None:
        return None
    return Base(entry.name, folder, entry.context_length)


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(help="Training data, or a document.", show_default=False)],
    purpose: Annotated[
        str, typer.Option(help="fine-tune or user_data; by default the ending decides.")
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """Upload a training file, or a document for retrieval, and print its id."""
    typer.echo(upload_file(path, data_dir, purpose))


def upload_file(path: Path, data_dir: Path | None, purpose: str = "fine-tune") -> str:
    """Upload ``path``; return its id, or raise with what is wrong in it.

    Without a purpose, text, Markdown, HTML, PDF and DOCX are documents for retrieval.
    """
    chosen = purpose or ("user_data" if path.suffix.lower() in DOCUMENTS else "fine-tune")
    if chosen not in ("fine-tune", "user_data"):
        raise CommandFailed("--purpose must be fine-tune or user_data")
    with openai_client(data_dir) as client, _existing(path).open("rb") as stream:
        stored = client.files.create(
            file=(path.name, stream), purpose=cast('Literal["fine-tune", "user_data"]', chosen)
        )
    return stored.id


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CommandFailed(f"{path} does not exist or is not a file")
    return path
