"""Why an adapter that exists is not served: the resolver knows, vLLM's 404 does not say.

vLLM asks the resolver inside the process in which the guard answers, so what the one notes the
other can tell.
"""

import json

from starlette.types import Message, Send

from shared.errors import TailorError, payload

MOST_NOTED = 10_000
"""Refused adapters are few; their number is bounded all the same."""


class Refusals:
    """The last verdict on each adapter that was refused."""

    def __init__(self) -> None:
        self._why: dict[str, TailorError] = {}

    def note(self, adapter: str, why: TailorError) -> None:
        """Remember why ``adapter`` is refused."""
        self._why.pop(adapter, None)
        while len(self._why) >= MOST_NOTED:
            del self._why[next(iter(self._why))]
        self._why[adapter] = why

    def forget(self, adapter: str) -> None:
        """It is served after all."""
        self._why.pop(adapter, None)

    def explaining(self, adapter: str, send: Send) -> Send:
        """Return a ``send`` that puts the reason in the place of a 404 for a refused adapter."""
        replaced = False

        async def explain(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 404:
                why = self._why.get(adapter)
                if why is not None:
                    replaced = True
                    for part in _answer(why):
                        await send(part)
            if not replaced:
                await send(message)

        return explain


def _answer(why: TailorError) -> list[Message]:
    detail = payload(why)["error"] | {"param": "model"}
    body = json.dumps({"error": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    return [
        {"type": "http.response.start", "status": why.status, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]


REFUSALS = Refusals()
"""Of this process."""
