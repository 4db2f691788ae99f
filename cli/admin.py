"""``tailor admin``: the jobs of all tenants, for whoever runs this Tailor (needs the admin key)."""

from typing import Annotated

import typer
from rich.table import Table

from cli.client import AdminClient
from cli.console import console, date
from cli.options import DataDir

app = typer.Typer(help="Jobs of all tenants.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="ftjob-…", show_default=False)]


@app.command()
def jobs(
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant, org-….")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only those in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    data_dir: DataDir = None,
) -> None:
    """List the newest jobs, with what they wait for."""
    table = Table("job", "tenant", "state", "since", "attempt", "error")
    with AdminClient.connect(data_dir) as admin:
        for job in admin.jobs(tenant, state or [], limit):
            error = (job["error"] or {}).get("code") or ""
            since, attempt = date(job["state_changed_at"]), str(job["attempt"])
            table.add_row(job["id"], job["tenant_id"], job["state"], since, attempt, error)
    console().print(table)


@app.command()
def cancel(job_id: JobId, data_dir: DataDir = None) -> None:
    """Cancel a job of any tenant; its feed says that the administrator did."""
    with AdminClient.connect(data_dir) as admin:
        job = admin.cancel_job(job_id)
    typer.echo(f"{job['id']} {job['state']}")


@app.command()
def resume(job_id: JobId, data_dir: DataDir = None) -> None:
    """Let a paused job of any tenant go on."""
    with AdminClient.connect(data_dir) as admin:
        job = admin.resume_job(job_id)
    typer.echo(f"{job['id']} {job['state']}")
