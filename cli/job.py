"""``tailor job``: create fine-tuning jobs and follow them, through OpenAI's own client."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.client import openai_client, served_base
from cli.compare import follow_to_report, of_job
from cli.console import console
from cli.data_report import print_data_report
from cli.errors import CommandFailed
from cli.file import upload_file
from cli.options import DataDir
from cli.watch import extra, summarise, watch

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import SupervisedHyperparametersParam

app = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="ftjob-…", show_default=False)]


@app.command()
def create(  # noqa: PLR0917  Typer passes by name; these are the command's options
    training_file: Annotated[
        str, typer.Argument(help="Id of an uploaded file, or a path to upload.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="Base model; by default the served one.")] = "",
    validation_file: Annotated[str | None, typer.Option(help="Id or path, as above.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the new model's name.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed and data, same model.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: auto.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: auto.")] = None,
    learning_rate_multiplier: Annotated[float | None, typer.Option(help="Default: auto.")] = None,
    forgetting_budget: Annotated[
        float | None, typer.Option(help="0.1: loss on general texts may rise by a tenth.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Set rows apart, and end with a comparison on them.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Create a fine-tuning job and print its id."""
    hyperparameters: SupervisedHyperparametersParam = {
        "n_epochs": "auto" if epochs is None else epochs,
        "batch_size": "auto" if batch_size is None else batch_size,
        "learning_rate_multiplier": (
            "auto" if learning_rate_multiplier is None else learning_rate_multiplier
        ),
    }
    with openai_client(data_dir) as client:
        job = client.fine_tuning.jobs.create(
            model=model or served_base(client),
            training_file=_file_id(training_file, data_dir),
            method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            validation_file=_file_id(validation_file, data_dir) if validation_file else None,
            suffix=suffix,
            seed=seed,
            extra_body={
                "x_forgetting_budget": forgetting_budget,
                "x_compare": {"seed": seed} if compare else None,
            },
        )
        typer.echo(job.id)
        if wait:
            _watch_to_success(client, job.id)
            if compare:
                follow_to_report(client, of_job(client, job.id))


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20, data_dir: DataDir = None
) -> None:
    """List the newest jobs."""
    table = Table("job", "status", "base model", "fine-tuned model")
    with openai_client(data_dir) as client:
        for job in client.fine_tuning.jobs.list(limit=limit).data:
            table.add_row(job.id, job.status, job.model, job.fine_tuned_model or "")
    console().print(table)


@app.command()
def show(
    job_id: JobId,
    as_json: Annotated[
        bool | None,
        typer.Option("--json/--pretty", help="Default: pretty on a terminal, JSON in a pipe."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Print a job, and the data report of its files."""
    out = console()
    with openai_client(data_dir) as client:
        job = client.fine_tuning.jobs.retrieve(job_id)
    if not out.is_terminal if as_json is None else as_json:
        typer.echo(job.to_json())
        return
    summarise(job, out)
    report = extra(job, "data_report")
    if report:
        print_data_report(report, out)
    else:
        out.print("no data report: the files have not been checked yet")


@app.command()
def examples(job_id: JobId, data_dir: DataDir = None) -> None:
    """Print what the model saw first, what is learnt in brackets, and some of its answers."""
    from cli.examples import print_examples  # noqa: PLC0415  only here
    from shared.jobs.examples import Examples  # noqa: PLC0415

    with openai_client(data_dir) as client:
        found: Any = client.get(f"/fine_tuning/jobs/{job_id}/examples", cast_to=object)
    kept = {name: found[name] for name in Examples.model_fields}
    print_examples(Examples.model_validate(kept), console())


@app.command("watch")
def watch_job(job_id: JobId, data_dir: DataDir = None) -> None:
    """Follow a job to its end."""
    with openai_client(data_dir) as client:
        _watch_to_success(client, job_id)


@app.command()
def cancel(job_id: JobId, data_dir: DataDir = None) -> None:
    """Ask for a job to be cancelled."""
    with openai_client(data_dir) as client:
        job = client.fine_tuning.jobs.cancel(job_id)
    typer.echo(f"{job.id} {job.status}")


@app.command()
def resume(job_id: JobId, data_dir: DataDir = None) -> None:
    """Let a paused job go on; one that is trained is published without training again."""
    with openai_client(data_dir) as client:
        job = client.fine_tuning.jobs.resume(job_id)
    typer.echo(f"{job.id} {job.status}")


def _file_id(id_or_path: str, data_dir: Path | None) -> str:
    if id_or_path.startswith("file-") and not Path(id_or_path).exists():
        return id_or_path
    return upload_file(Path(id_or_path), data_dir)


def _watch_to_success(client: "OpenAI", job_id: str) -> None:
    out = console()
    job = watch(client, job_id, out)
    summarise(job, out)
    if job.status != "succeeded":
        raise CommandFailed(f"{job.id} did not succeed")
