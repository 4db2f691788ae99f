"""``tailor tenant`` and ``tailor key``: who may use this Tailor (needs the admin key)."""

import json
import shlex
from typing import Annotated

import typer
from rich.table import Table

from cli.client import AdminClient
from cli.console import console, date, line_console
from cli.errors import CommandFailed
from cli.options import DataDir

tenant_app = typer.Typer(help="Tenants: the companies that use this Tailor.", no_args_is_help=True)
key_app = typer.Typer(help="API keys of a tenant.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@tenant_app.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="The company's name, unique on this Tailor.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
    export: Annotated[
        bool, typer.Option("--export", help='Print a line for `eval "$(…)"` in a shell.')
    ] = False,
) -> None:
    """Create a tenant and print its API key, this once."""
    with AdminClient.connect(data_dir) as admin:
        tenant = admin.create_tenant(name)
    secret = tenant["api_key"]
    if as_json:
        typer.echo(json.dumps(tenant))
    elif export:
        typer.echo(f"export TAILOR_API_KEY={shlex.quote(secret)}")
    else:
        _show_key(f"Tenant {tenant['name']} ({tenant['id']})", secret)


@tenant_app.command("limits")
def limits(
    tenant_id: Annotated[str, typer.Argument(help="org-…, as printed by `tenant create`.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="NAME=NUMBER …, NAME=DEFAULT; DEFAULT alone: none of its own."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Show what a tenant may use, or change it: requests_per_minute=600 queued_jobs=10."""
    with AdminClient.connect(data_dir) as admin:
        if not changes:
            found = admin.limits(tenant_id)
        elif changes == ["DEFAULT"]:
            found = admin.set_limits(tenant_id, {})
        else:
            found = admin.change_limits(tenant_id, _named(changes))
    for name, amount in found.items():
        typer.echo(f"{name} = {amount}")


def _named(changes: list[str]) -> dict[str, int | None]:
    pairs = [change.partition("=") for change in changes]
    if not all(number.isdecimal() or number == "DEFAULT" for _, _, number in pairs):
        raise CommandFailed("write NAME=NUMBER or NAME=DEFAULT, for example queued_jobs=10")
    return {name: None if number == "DEFAULT" else int(number) for name, _, number in pairs}


@key_app.command("create")
def create_key(
    tenant_id: Annotated[str, typer.Argument(help="org-…, as printed by `tenant create`.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a further API key of a tenant and print it, this once."""
    with AdminClient.connect(data_dir) as admin:
        key = admin.create_key(tenant_id)
    if as_json:
        typer.echo(json.dumps(key))
    else:
        _show_key(f"Key {key['id']} of {tenant_id}", key["api_key"])


@key_app.command("list")
def list_keys(
    tenant_id: Annotated[str, typer.Argument(help="org-…, as printed by `tenant create`.")],
    data_dir: DataDir = None,
) -> None:
    """List the keys of a tenant: their ids and last characters, newest first."""
    table = Table("key", "ends with", "made", "revoked")
    with AdminClient.connect(data_dir) as admin:
        for key in admin.keys(tenant_id):
            made, revoked = date(key["created_at"]), date(key["revoked_at"])
            table.add_row(key["id"], key["hint"], made, revoked)
    console().print(table)


@key_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="key_…")], data_dir: DataDir = None
) -> None:
    """Close an API key for ever."""
    with AdminClient.connect(data_dir) as admin:
        admin.revoke_key(key_id)
    typer.echo(f"{key_id} is revoked")


def _show_key(title: str, secret: str) -> None:
    console = line_console()
    console.print(title)
    console.print(f"  export TAILOR_API_KEY={secret}")
    console.print("Keep it now: Tailor stores only its hash and cannot show it again.")
