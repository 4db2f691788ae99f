"""``tailor chat``: talk to a model, one question or a conversation."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.client import openai_client, served_base
from cli.options import DataDir

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam


def chat(  # noqa: PLR0917  Typer passes by name; these are the command's options
    model: Annotated[
        str | None, typer.Argument(help="A base model or ft:…; by default the served base model.")
    ] = None,
    question: Annotated[
        str | None, typer.Argument(help="Ask this once; without it, a conversation begins.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0,
    data_dir: DataDir = None,
) -> None:
    """Talk to a model; answers appear as they are written."""
    messages: list[ChatCompletionMessageParam] = []
    if system:
        messages.append({"role": "system", "content": system})
    with openai_client(data_dir) as client:
        model = model or served_base(client)
        for text in [question] if question else iter(_read_question, None):
            messages.append({"role": "user", "content": text})
            answer = _answer(client, model, messages, max_tokens, temperature)
            messages.append({"role": "assistant", "content": answer})


def _read_question() -> str | None:
    """Return the next question; None at the end of input or on an empty line."""
    try:
        return input("> ").strip() or None
    except (EOFError, KeyboardInterrupt):
        return None


def _answer(
    client: "OpenAI",
    model: str,
    messages: "list[ChatCompletionMessageParam]",
    max_tokens: int,
    temperature: float,
) -> str:
    answer = ""
    stream = client.chat.completions.create(
        model=model,
        messages=messages,
        max_tokens=max_tokens,
        temperature=temperature,
        stream=True,
    )
    for chunk in stream:
        piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
        typer.echo(piece, nl=False)
        answer += piece
    typer.echo()
    return answer
