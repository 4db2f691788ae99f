"""``tailor up``, ``down``, ``status`` and ``logs``: the stack on this machine.

The only commands that know ``deploy.local``; they import it when they run, so that all others work
without the servers' packages.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.connection import DEFAULT_DATA_DIR
from cli.console import line_console
from cli.signals import ignore_signals, interrupt_on_signals

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder that the stack keeps all in.")]
EXIT_STOPPED = 3
EXIT_INTERRUPTED = 130
COLOURS = {
    "postgres": "blue",
    "valkey": "magenta",
    "api": "green",
    "scheduler": "yellow",
    "worker": "cyan",
    "comparer": "bright_cyan",
    "inference": "bright_red",
}


def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    detach: Annotated[bool, typer.Option("--detach", help="Return when all is ready.")] = False,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Base model to serve, see `tailor model list`; may be repeated."),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Inference processes for each of them.")] = 1,
) -> None:
    """Start the stack; stop it with Ctrl-C, or with `tailor down` where --detach was given."""
    from deploy.local.stack import Stack  # noqa: PLC0415  see the module's docstring

    console = line_console()
    stack = Stack(data_dir)
    interrupt_on_signals()
    try:
        url = stack.start(
            host,
            port,
            lambda name, took: _report(console, name, took),
            base_models=model or (),
            replicas=replicas,
        )
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if detach:
        console.print(f"ready {url}")
        return
    try:
        console.print(f"ready {url}")
        _follow(console, stack, None, lines=0)
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        # Whatever ended the showing of logs, a closed pipe included, ends the stack.
        ignore_signals()
        _stop(console, stack)


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the stack: a training job saves a checkpoint first and goes on after the next start."""
    from deploy.local.stack import Stack  # noqa: PLC0415  see the module's docstring

    _stop(line_console(), Stack(data_dir))


def status(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say how every service is; the exit code is 3 when the stack is stopped."""
    from deploy.local.stack import Stack  # noqa: PLC0415  see the module's docstring

    found = Stack(data_dir).status()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        line_console().print(_table(found))
    if found["state"] == "stopped":
        raise typer.Exit(EXIT_STOPPED)


def logs(
    service: Annotated[str | None, typer.Argument(help="One service; all if not given.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Of each service.")] = 50,
) -> None:
    """Show what the services wrote."""
    from deploy.local.stack import Stack  # noqa: PLC0415  see the module's docstring

    console, stack = line_console(), Stack(data_dir)
    try:
        _follow(console, stack, service, lines, follow=follow)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _follow(
    console: Console, stack: Any, service: str | None, lines: int, *, follow: bool = True
) -> None:
    from deploy.local import logs as local_logs  # noqa: PLC0415  see the module's docstring

    paths = stack.log_paths(service)
    appended = local_logs.follow(paths, stack.is_running) if follow else ()
    for name, path in paths.items():
        for line in local_logs.tail(path, lines) if lines else ():
            _print_line(console, name, line)
    for name, line in appended:
        _print_line(console, name, line)


def _stop(console: Console, stack: Any) -> None:
    began = time.monotonic()
    if stack.stop():
        console.print(f"stopped in {time.monotonic() - began:.1f} s")
    else:
        console.print(f"nothing runs in {stack.folder.root}")


def _report(console: Console, name: str, took: float) -> None:
    console.print(Text.assemble(f"{name:<11} ", ("ready", "green"), f" {took:6.1f} s"))


def _print_line(console: Console, name: str, line: str) -> None:
    colour = COLOURS[name.partition("-")[0]]
    console.print(Text.assemble((f"{name:<11} ", colour), line))


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['state']} {found['url'] or ''}".strip(), title_justify="left")
    for column in ("service", "state", "pid", "uptime", "memory", "version", "base model"):
        table.add_column(column, no_wrap=column != "version")
    for name, service in found["services"].items():
        uptime = service.get("uptime_seconds")
        table.add_row(
            name,
            service["state"],
            str(service.get("pid") or ""),
            "" if uptime is None else f"{uptime} s",
            _gigabytes(service.get("memory_bytes")),
            service.get("version") or "",
            service.get("base_model") or "",
        )
    if found.get("memory_bytes"):
        taken = sum(service.get("memory_bytes") or 0 for service in found["services"].values())
        table.caption = f"{_gigabytes(taken)} of {_gigabytes(found['memory_bytes'])} memory"
        table.caption_justify = "left"
    return table


def _gigabytes(taken: int | None) -> str:
    return "" if taken is None else f"{taken / 1e9:.2f} GB"
