"""What went wrong, in one sentence and with a non-zero exit code, instead of a traceback."""

from typing import Any

import typer
from pydantic import ValidationError
from rich.text import Text
from typer.core import TyperGroup

from cli.console import line_console
from shared.errors import TailorError


class CommandFailed(Exception):
    """A command cannot go on; its text is the sentence the user reads."""


class ExplainingGroup(TyperGroup):
    """The command group that turns expected errors into one sentence on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            line_console(stderr=True).print(Text.assemble(("error:", "red"), " ", sentence))
            raise typer.Exit(1) from None


def explain(error: Exception) -> str | None:
    """Return the sentence for an error a user can understand; None for a defect of ours."""
    if isinstance(error, CommandFailed | TailorError):
        return str(error)
    if isinstance(error, PermissionError):
        return f"{error.filename or 'A file'} cannot be read or written by you"
    if isinstance(error, ValidationError):
        return _explain_settings(error)
    return _explain_http(error)


def _explain_settings(error: ValidationError) -> str | None:
    """Name the environment variable that holds something unusable, without showing it."""
    first = error.errors(include_input=False)[0]
    if not error.title.endswith("Settings") or not first["loc"]:
        return None
    return f"TAILOR_{str(first['loc'][0]).upper()} is not usable: {first['msg']}"


def _explain_http(error: Exception) -> str | None:
    import httpx  # noqa: PLC0415  both clients are slow to import; most commands do not fail
    import openai  # noqa: PLC0415

    if isinstance(error, openai.APIConnectionError):
        return f"cannot reach {error.request.url}: is the stack up? (`tailor up`)"
    if isinstance(error, openai.APIStatusError):
        return message_of(error.response)
    if isinstance(error, openai.OpenAIError):
        return str(error)
    if isinstance(error, httpx.RequestError):
        return f"cannot reach {error.request.url}: is the stack up? (`tailor up`)"
    return None


def message_of(response: Any) -> str:
    """Return the message of an error in OpenAI's shape, or the status where there is none."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code} {response.reason_phrase}"
