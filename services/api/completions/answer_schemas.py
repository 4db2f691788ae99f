"""How answers look, for the API's document; ``answers.py`` builds them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "length", "content_filter"]


class _Answered(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Usage(_Answered):
    """What the answer cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(_Answered):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token of the answer, and the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Answered):
    """How likely each token of a chat's answer was."""

    content: list[TokenLogprob]
    refusal: None


class Message(_Answered):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Answered):
    """One of ``n`` answers."""

    index: int
    message: Message
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class TextLogprobs(_Answered):
    """How likely each token of a text was."""

    text_offset: list[int] | None
    token_logprobs: list[float | None] | None
    tokens: list[str] | None
    top_logprobs: list[dict[str, float] | None] | None


class TextChoice(_Answered):
    """One of ``n`` texts for each prompt."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class _Completion(_Answered):
    id: str
    created: int
    model: str
    """As the caller wrote it."""
    system_fingerprint: None
    usage: Usage


class ChatCompletion(_Completion):
    """The answer to a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextCompletion(_Completion):
    """How a text goes on."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
