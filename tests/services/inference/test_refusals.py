"""A refused adapter is told from a missing one, through the guard as a gateway meets it."""

import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from services.inference.load_check import AdapterRefused, BaseNotServed
from services.inference.refusals import MOST_NOTED, REFUSALS, Refusals
from shared.ids import new_id
from tests.services.inference.test_guard import Service, service

pytestmark = pytest.mark.anyio
__all__ = ["service"]


@pytest.fixture
def _vllm_finds_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def not_found(_: Request) -> JSONResponse:
        return JSONResponse({"error": {"message": "does not exist", "code": 404}}, 404)

    for route in service.app.routes:
        if getattr(route, "path", "") == "/v1/chat/completions":
            monkeypatch.setattr(route, "app", not_found_app(not_found))


def not_found_app(endpoint: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (await endpoint(Request(scope, receive)))(scope, receive, send)

    return app


@pytest.mark.usefixtures("_vllm_finds_nothing")
@pytest.mark.parametrize(
    ("why", "code"),
    [
        (AdapterRefused("layer 19 is outside"), "adapter_refused"),
        (BaseNotServed("it was trained on another base model"), "base_not_served"),
    ],
)
async def test_a_refused_adapter_says_why_and_a_missing_one_does_not(
    service: Service, why: AdapterRefused, code: str
) -> None:
    adapter, other = service.publish(), service.publish()
    REFUSALS.note(adapter, why)
    answer = await service.ask(adapter)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (422, code, why.message)
    assert (await service.ask(other)).status_code == 404
    REFUSALS.forget(adapter)
    assert (await service.ask(adapter)).status_code == 404


async def test_an_answer_goes_through_untouched_also_where_a_refusal_was_noted() -> None:
    refusals, sent = Refusals(), []
    refusals.note("ad", AdapterRefused("x"))

    async def send(message: Any) -> None:
        sent.append(message)

    explain = refusals.explaining("ad", send)
    messages: list[dict[str, Any]] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": json.dumps({}).encode()},
    ]
    for message in messages:
        await explain(message)
    assert sent == messages


def test_what_is_noted_is_bounded_and_the_newest_stays() -> None:
    refusals = Refusals()
    names = [new_id("ad_") for _ in range(3)]
    refusals.note(names[0], AdapterRefused("first"))
    for number in range(MOST_NOTED):
        refusals.note(str(number), AdapterRefused("x"))
    assert names[0] not in refusals._why
    assert len(refusals._why) == MOST_NOTED
