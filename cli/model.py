"""``tailor model``: the base models of this machine.

Like ``tailor up`` it works on the machine itself and imports ``deploy.local`` when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.connection import DEFAULT_DATA_DIR
from cli.console import console, line_console
from cli.errors import CommandFailed
from cli.options import MODELS, ModelsDir
from shared.catalog import DESCRIPTION, BaseModelEntry, load_catalog

app = typer.Typer(help="Add, look at and remove base models.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(show_default=False, help="As `tailor model list` shows it.")]


@app.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            show_default=False, help="OWNER/NAME[@REVISION] of the hub, a folder or a GGUF file."
        ),
    ],
    name: Annotated[str, typer.Option(help="What it is called here.", show_default=False)] = "",
    chat_template: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            show_default=False,
            help="A Jinja template for a model without one, or instead of its own.",
        ),
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--no-check", help="Leave the proof for `tailor model check`.")
    ] = False,
    models_dir: ModelsDir = MODELS,
) -> None:
    """Add a base model: look at it, propose what of it is trained, and prove that it works."""
    from deploy.local.add_model import Wanted, default_name, install  # noqa: PLC0415  see above

    out = line_console()
    out.print(f"adding {source} …")
    entry = install(Wanted(source, name or default_name(source), chat_template), models_dir)
    path = entry.folder(models_dir) / DESCRIPTION
    out.print(f"added {entry.name}: {_summary(entry)}")
    out.print(f"what is trained of it may be changed in {path} until a job has used it")
    if not unchecked:
        check(entry.name, models_dir)
    out.print(f"serve it: tailor up --model {entry.name}")


@app.command("list")
def list_models(models_dir: ModelsDir = MODELS) -> None:
    """Show the base models that may be served."""
    table = Table("name", "architecture", "layers", "trained", "context", "offered")
    for entry in load_catalog(models_dir):
        there = (entry.folder(models_dir) / "config.json").is_file()
        offered = "yes" if entry.offered(models_dir) else f"no (tailor model check {entry.name})"
        trained = entry.profile.trained_layers
        table.add_row(
            entry.name,
            entry.architecture.name,
            str(entry.architecture.layers),
            f"{trained[0]} to {trained[-1]}",
            str(entry.context_length),
            offered if there else "no (make setup)",
        )
    console().print(table)


@app.command()
def check(name: Name, models_dir: ModelsDir = MODELS) -> None:
    """Prove that a base model trains, and that vLLM serves what was trained (two minutes)."""
    from deploy.local.add_model import check as prove  # noqa: PLC0415  see above

    entry = load_catalog(models_dir).get(name)
    out = line_console()
    out.print("checking on its very weights: training path, PEFT, vLLM …")
    proof = prove(entry, models_dir)
    out.print(f"trains: yes, by the {proof.path} path; PEFT is off by {proof.peft_off:.3f}")
    out.print(
        f"serves: yes; vLLM is off by {proof.served_off:.3f} where an adapter changes "
        f"{proof.adapter_off:.3f}"
    )


@app.command()
def show(name: Name, models_dir: ModelsDir = MODELS) -> None:
    """Print all that is known of a base model, as JSON."""
    typer.echo(load_catalog(models_dir).get(name).model_dump_json(indent=1))


@app.command()
def remove(
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Even where models were trained on it.")
    ] = False,
    data_dir: Annotated[
        Path, typer.Option(help="The stack's folder, where trained models are looked for.")
    ] = DEFAULT_DATA_DIR,
    models_dir: ModelsDir = MODELS,
) -> None:
    """Remove a base model that was added, unless models were trained on it."""
    from deploy.local.add_model import trained_on, uninstall  # noqa: PLC0415  see above

    entry = load_catalog(models_dir).get(name)
    if not force and (count := trained_on(entry, data_dir)):
        raise CommandFailed(
            f"{count} model(s) in {data_dir} were trained on {name} and could not be called any "
            "more; --force removes it all the same"
        )
    uninstall(entry, models_dir)
    line_console().print(f"removed {name}; jobs that still wait for it will end with an error")


def _summary(entry: BaseModelEntry) -> str:
    trained = entry.profile.trained_layers
    return (
        f"{entry.architecture.name}, {entry.architecture.layers} layers, of which "
        f"{trained[0]} to {trained[-1]} are trained"
    )
