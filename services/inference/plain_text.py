"""What a request's texts become before vLLM reads them: as in training, by the same encoder.

Template words inside a message are marked, so that the tokenizer vLLM is started with reads them
as plain text. A prompt of a model that was trained on prompt and completion becomes the token ids
that stood before the completion in training.
"""

import asyncio
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp

from shared.chat.encoder import ChatEncoder, TooLong, Unmaskable
from shared.errors import InvalidRequest

AS_TRAINED = "tailor_prompt_as_trained"
"""The gateway's word, beside ``prompt``: the model was trained on prompt and completion."""


class TextsAsTrained:
    """Rewrites the bodies of requests for one base model."""

    def __init__(self, base: Path, context_length: int) -> None:
        self._base = base
        self._context_length = context_length

    @cached_property
    def _encoder(self) -> ChatEncoder:
        return ChatEncoder(self._base)

    def rewrite(self, raw: bytes) -> bytes:
        """Return the body that vLLM is to see; raise InvalidRequest."""
        body = json.loads(raw)
        as_trained = body.pop(AS_TRAINED, False)
        if isinstance(body.get("messages"), list):
            body["messages"] = [self._message(message) for message in body["messages"]]
        elif as_trained:
            body["prompt"] = self._ids(body.get("prompt"))
        else:
            return raw
        return json.dumps(body).encode()

    async def are_read_by(self, vllm: ASGIApp, model: str) -> bool:
        """Say whether ``vllm``, asked in its own process, reads a chat as training does.

        The chat is full of template words. What the running tokenizer and chat template make of it
        counts: not the files that they should have been read from.
        """
        encoder = await asyncio.to_thread(lambda: self._encoder)
        chat = [{"role": "user", "content": "".join(sorted(encoder.words)) + " hi\n"}]
        body = json.dumps({"model": model, "messages": chat}).encode()
        inside = httpx.ASGITransport(vllm, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=inside, base_url="http://vllm") as client:
            answer = await client.post(
                "/tokenize",
                content=self.rewrite(body),
                headers={"content-type": "application/json"},
            )
        return answer.is_success and answer.json().get("tokens") == encoder.prompt(chat)

    def _message(self, message: Any) -> Any:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise InvalidRequest("each message must have a text as its content", "messages")
        return message | {"content": self._encoder.plain(message["content"])}

    def _ids(self, prompt: Any) -> list[list[int]]:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(prompts, list) or not all(isinstance(text, str) for text in prompts):
            raise InvalidRequest("must be a text or a list of texts", "prompt")
        chats = [[{"role": "user", "content": text}] for text in prompts]
        try:
            return [self._encoder.prompt(chat, self._context_length) for chat in chats]
        except TooLong as error:
            message = (
                f"This model's maximum context length is {self._context_length} tokens, and the "
                f"prompt is longer: {error}"
            )
            # As vLLM names what is too long; the gateway knows what the caller calls it.
            raise InvalidRequest(message, "input_tokens", "context_length_exceeded") from None
        except Unmaskable as error:
            raise InvalidRequest(str(error), "prompt") from None
