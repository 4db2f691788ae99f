"""The ``tailor`` command: every sub-command is a function of one of the modules registered here."""

import typer

from cli import admin, chat, compare, demo, file, job, model, stack, tenant
from cli.errors import ExplainingGroup

app = typer.Typer(
    name="tailor",
    cls=ExplainingGroup,
    help="Fine-tune a company's own language model and call it with the OpenAI client.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

# The stack and the base models on this machine: the only commands that import deploy.local.
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(stack.logs)
app.add_typer(model.app, name="model")

# Everything else speaks HTTP.
app.add_typer(tenant.tenant_app, name="tenant")
app.add_typer(tenant.key_app, name="key")
app.add_typer(admin.app, name="admin")
app.add_typer(file.app, name="file")
app.add_typer(job.app, name="job")
app.add_typer(compare.app, name="compare")
app.command()(chat.chat)
app.command()(demo.demo)


if __name__ == "__main__":
    app()
