"""What went wrong, in one sentence and with a non-zero exit code, instead of a traceback."""

from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

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
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                f"[red]error:[/red] {_escape(sentence)}"
            )
            raise typer.Exit(1) from None


def explain(error: Exception) -> str | None:
    """Return the sentence for an error a user can understand; None for a defect of ours."""
    if isinstance(error, CommandFailed | TailorError):
        return str(error)
    return _explain_http(error)


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


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
