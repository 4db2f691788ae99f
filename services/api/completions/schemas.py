"""What a caller may ask of a model. What is not named here is refused by name.

These classes are the allow-list: several published faults let one odd field kill the engine for
every tenant, so the inference service only ever sees bodies that were built anew from them.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from services.api.completions.neutral import described, without_neutral
from services.api.errors import UNSUPPORTED
from shared.errors import InvalidRequest

MAX_SEQUENCES = 128
"""Answers that one request may ask for: prompts times ``n``."""
GREEDY = 1e-5
"""Temperatures below this are 0 to vLLM."""

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


def unsupported(what: str) -> PydanticCustomError:
    """Build a validator's error that says by name what is not supported."""
    return PydanticCustomError(UNSUPPORTED, "{what}", {"what": what})


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

    FORWARDED: ClassVar[frozenset[str]] = frozenset(
        {"temperature", "top_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty"}
    )

    @model_validator(mode="before")
    @classmethod
    def _neutral_means_absent(cls, data: Any) -> Any:
        return without_neutral(data, cls.model_fields) if isinstance(data, dict) else data

    @field_validator("stop", mode="after")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > 4:
            raise ValueError("at most 4 stop sequences are allowed")
        return stop

    @model_validator(mode="after")
    def _answers_may_differ(self) -> "CompletionOptions":
        if self.n > 1 and self.temperature is not None and self.temperature < GREEDY:
            raise InvalidRequest(
                "n: at temperature 0 all answers are the same; ask for one, or raise temperature.",
                "n",
                "invalid_value",
            )
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
    cache_control: Any = None
    """A hint that some clients add; there is nothing to steer here."""


Empty = Annotated[Any, WithJsonSchema({"enum": [None, False, "", [], {}]})]


class ChatMessage(_Asked):
    """One turn. The keys after ``name`` come back from answers, here always empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    annotations: Any = None
    """Links into the text of an answer; nothing reads them."""
    refusal: Empty = None
    reasoning_content: Empty = None
    audio: Empty = None
    function_call: Empty = None
    tool_calls: Empty = None
    tool_call_id: Empty = None

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        # Content that is null is not content that was forgotten.
        return {key: value for key, value in data.items() if value is not None or key == "content"}

    @field_validator(
        "refusal", "reasoning_content", "audio", "function_call", "tool_calls", "tool_call_id"
    )
    @classmethod
    def _come_back_empty(cls, value: Any) -> Any:
        if value:
            raise unsupported("not supported; the turns of a chat are text")
        return value

    @field_validator("role", mode="before")
    @classmethod
    def _no_tool_roles(cls, role: Any) -> Any:
        if role in ("tool", "function"):
            raise unsupported("messages of tools are not supported; the models answer with text")
        return role

    @field_validator("content", mode="before")
    @classmethod
    def _text_parts_only(cls, content: Any) -> Any:
        if content is None:
            raise ValueError("null is not a text; send the text, or leave the message out")
        parts = content if isinstance(content, list) else []
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind != "text":
                raise unsupported(f"{kind[:64]} parts are not supported; only text parts are")
        return content

    def forwarded(self) -> dict[str, str]:
        """Return role and plain text, as the model was trained on them."""
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ResponseFormat(_Asked):
    """Plain text only: a grammar can stop the engine for everybody."""

    type: Literal["text"]

    @field_validator("type", mode="before")
    @classmethod
    def _no_structure(cls, kind: Any) -> Any:
        if kind in ("json_object", "json_schema"):
            raise unsupported(f"structured output ({kind}) is not supported; ask for it in words")
        return kind


class ChatIn(CompletionOptions):
    """The body of POST /v1/chat/completions."""

    model_config = ConfigDict(
        json_schema_extra=described(
            {
                "model": "smollm2-135m-instruct",
                "messages": [{"role": "user", "content": "How long is the warranty?"}],
                "temperature": 0,
                "max_completion_tokens": 64,
            }
        )
    )

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=5)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _logprobs_first(self) -> "ChatIn":
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest(
                "top_logprobs needs logprobs to be true.", "top_logprobs", "invalid_value"
            )
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

    model_config = ConfigDict(
        json_schema_extra=described(
            {
                "model": "smollm2-135m-instruct",
                "prompt": "The warranty is",
                "max_tokens": 16,
            }
        )
    )

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=MAX_SEQUENCES)]
    logprobs: int | None = Field(None, ge=0, le=5)

    @field_validator("prompt", mode="before")
    @classmethod
    def _text_and_no_tokens(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and any(isinstance(item, int | list) for item in prompt):
            raise unsupported("prompts of token ids are not supported; send the text")
        return prompt

    @model_validator(mode="after")
    def _not_too_many(self) -> "CompletionIn":
        prompts = len(self.prompt) if isinstance(self.prompt, list) else 1
        if prompts * self.n > MAX_SEQUENCES:
            raise InvalidRequest(
                f"prompt: {prompts} prompts with n={self.n} ask for {prompts * self.n} answers; "
                f"one request may ask for {MAX_SEQUENCES}.",
                "prompt",
                "invalid_value",
            )
        return self

    def answer_tokens(self) -> int:
        """Return the greatest length of an answer; OpenAI's own default here is 16."""
        return self.max_tokens or 16

    def forwarded(self) -> dict[str, Any]:
        """Return the fields that the inference service is to see."""
        fields = super().forwarded() | {"prompt": self.prompt}
        if self.logprobs is not None:
            fields["logprobs"] = self.logprobs
        return fields
