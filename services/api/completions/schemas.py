"""What a caller may ask of a model. What is not named here is refused by name.

These classes are the allow-list: several published faults let one odd field kill the engine for
every tenant, so the inference service only ever sees bodies that were built anew from them.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_SEED_LIMIT = 2**63


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None}


class StreamOptions(_Asked):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False
    """Known to OpenAI's clients; there is nothing to obfuscate here."""


class CompletionOptions(_Asked):
    """What both kinds of completion share."""

    model: str = Field(max_length=200, pattern=r"^[^\x00]+$")
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int = Field(1, ge=1, le=8)
    stop: Stop | list[Stop] | None = None
    seed: int | None = Field(None, ge=-_SEED_LIMIT, lt=_SEED_LIMIT)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stream: bool = False
    stream_options: StreamOptions | None = None

    user: str | None = None
    """Accepted and not used, like the four below: they change nothing in an answer."""
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None

    FORWARDED: ClassVar[frozenset[str]] = frozenset(
        {"temperature", "top_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty"}
    )

    @model_validator(mode="after")
    def _few_stops(self) -> "CompletionOptions":
        if isinstance(self.stop, list) and len(self.stop) > 4:
            raise ValueError("at most 4 stop sequences are allowed")
        return self

    def answer_tokens(self) -> int | None:
        """Return the greatest length of an answer that the caller asked for, if any."""
        return self.max_tokens

    def forwarded(self) -> dict[str, Any]:
        """Return the fields that the inference service is to see."""
        return self.model_dump(include=set(self.FORWARDED), exclude_none=True)


class TextPart(_Asked):
    """One part of a message that is written as a list."""

    type: Literal["text"]
    text: str


class ChatMessage(_Asked):
    """One turn. The keys after ``name`` come back from our own answers, empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None

    def forwarded(self) -> dict[str, str]:
        """Return role and plain text, as the model was trained on them."""
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ResponseFormat(_Asked):
    """Plain text only: a grammar can stop the engine for everybody."""

    type: Literal["text"]


class ChatIn(CompletionOptions):
    """The body of POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=5)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _logprobs_first(self) -> "ChatIn":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self

    def answer_tokens(self) -> int | None:
        """Return the greatest length of an answer; the newer name wins."""
        return self.max_completion_tokens or self.max_tokens

    def forwarded(self) -> dict[str, Any]:
        """Return the fields that the inference service is to see."""
        fields = super().forwarded()
        fields["messages"] = [message.forwarded() for message in self.messages]
        if self.logprobs:
            fields |= {"logprobs": True, "top_logprobs": self.top_logprobs or 0}
        return fields


Prompt = Annotated[str, StringConstraints(min_length=1)]


class CompletionIn(CompletionOptions):
    """The body of POST /v1/completions."""

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=16)]
    logprobs: int | None = Field(None, ge=0, le=5)

    def answer_tokens(self) -> int:
        """Return the greatest length of an answer; OpenAI's own default here is 16."""
        return self.max_tokens or 16

    def forwarded(self) -> dict[str, Any]:
        """Return the fields that the inference service is to see."""
        fields = super().forwarded() | {"prompt": self.prompt}
        if self.logprobs is not None:
            fields["logprobs"] = self.logprobs
        return fields
