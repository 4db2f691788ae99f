"""Several inference processes: who is asked, who is asked next, and when nobody else is."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import openai
import pytest
from sqlalchemy import update

from shared.catalog import load_catalog
from shared.clock import now
from shared.db import transaction
from shared.replicas.models import InferenceReplica
from tests.conftest import Database, PostgresServer
from tests.replicas import registered
from tests.services.api.conftest import (
    BASE,
    Api,
    Exchange,
    Script,
    Tenant,
    Upstream,
    running_api,
    scripted_server,
)
from tests.services.api.test_completions import ASK, chunk, streamed_answer, whole_answer


@dataclass
class Two:
    """An API before two scripted servers that serve the same."""

    api: Api
    tenant: Tenant
    servers: tuple[Upstream, Upstream]

    def script(self, *scripts: Script) -> None:
        """Let the first requests be answered so, whoever gets them; the last one by all after."""
        waiting = list(scripts)

        def next_script(exchange: Exchange) -> None:
            (waiting.pop(0) if len(waiting) > 1 else waiting[0])(exchange)

        for server in self.servers:
            server.script = next_script
            server.seen.clear()

    def asked(self) -> list[int]:
        """How many requests have reached each."""
        return [len(server.seen) for server in self.servers]


@pytest.fixture(scope="module")
def own_database(postgres: PostgresServer) -> Iterator[Database]:
    with postgres.fresh_database() as database:
        yield database


@pytest.fixture
def two(own_database: Database) -> Iterator[Two]:
    """A fresh gateway: it remembers who has failed."""
    with (
        scripted_server() as first,
        scripted_server() as second,
        running_api(own_database, first.url) as api,
        registered(api.system, second.url, load_catalog().get(BASE)),
    ):
        yield Two(api, api.new_tenant(), (first, second))


def chat(two: Two, *, model: str, stream: bool) -> str:
    asked = two.tenant.openai.chat.completions
    if not stream:
        return str(asked.create(model=model, messages=ASK).choices[0].message.content)
    pieces = asked.create(model=model, messages=ASK, stream=True)
    return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


def fail(exchange: Exchange) -> None:
    exchange.send_json(500, {"error": {"message": "EngineDead", "code": 500}})


def not_ready(exchange: Exchange) -> None:
    exchange.send_json(503, {})


def close(_exchange: Exchange) -> None:
    """As a process that is killed."""


def end_at_once(exchange: Exchange) -> None:
    exchange.start_stream()
    exchange.end_stream()


def break_before_the_first_event(exchange: Exchange) -> None:
    exchange.start_stream()


def begin_with_an_error(exchange: Exchange) -> None:
    exchange.start_stream()
    exchange.send_event({"error": {"message": "EngineDead", "code": 500}})
    exchange.end_stream()


def half_an_answer(exchange: Exchange) -> None:
    exchange.connection.sendall(b"HTTP/1.1 200 X\r\ncontent-length: 999\r\n\r\n{")


@pytest.mark.parametrize("failing", [fail, not_ready, close, half_an_answer])
def test_an_answer_is_asked_for_elsewhere_as_long_as_it_has_not_come(
    two: Two, failing: Script
) -> None:
    two.script(failing, whole_answer)
    assert chat(two, model=two.api.add_adapter(two.tenant), stream=False) == "九時からです。"
    assert two.asked() == [1, 1]


@pytest.mark.parametrize(
    "failing",
    [fail, not_ready, close, end_at_once, break_before_the_first_event, begin_with_an_error],
)
def test_a_stream_goes_on_elsewhere_as_long_as_nothing_of_it_has_come(
    two: Two, failing: Script
) -> None:
    two.script(failing, streamed_answer)
    assert chat(two, model=BASE, stream=True) == "九時\u2028から"
    assert two.asked() == [1, 1]


def test_a_stream_that_breaks_after_its_first_event_is_not_begun_again(two: Two) -> None:
    def breaking(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.send_event(chunk(exchange, delta={"content": "九"}))

    two.script(breaking, streamed_answer)
    with pytest.raises(openai.APIError):
        chat(two, model=BASE, stream=True)
    assert sum(two.asked()) == 1


@pytest.mark.parametrize("status", [400, 404, 422, 429])
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_an_answer(two: Two, status: int, stream: bool) -> None:
    two.script(lambda exchange: exchange.send_json(status, {"error": {"message": "no"}}))
    with pytest.raises(openai.APIStatusError):
        chat(two, model=BASE, stream=stream)
    assert sum(two.asked()) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_where_nobody_answers_each_has_been_asked_once(two: Two, stream: bool) -> None:
    two.script(fail)
    with pytest.raises(openai.InternalServerError) as caught:
        chat(two, model=BASE, stream=stream)
    assert caught.value.code == "inference_unavailable"
    assert two.asked() == [1, 1]


def test_a_model_stays_with_one_process_and_the_models_are_spread(two: Two) -> None:
    two.script(whole_answer)
    models = [two.api.add_adapter(two.tenant) for _ in range(12)]
    for model in models * 2:
        chat(two, model=model, stream=False)
    homes = [{exchange.body["model"] for exchange in server.seen} for server in two.servers]
    assert not homes[0] & homes[1]
    assert all(homes)


def test_who_has_failed_is_asked_last_for_a_while(two: Two) -> None:
    model = two.api.add_adapter(two.tenant)
    two.script(fail, whole_answer)
    for _ in range(5):
        chat(two, model=model, stream=False)
    assert sorted(two.asked()) == [1, 5]


@pytest.mark.parametrize("said", [{"base_sha256": "1" * 64}, {"profile_sha256": "1" * 64}])
def test_a_process_that_serves_other_weights_or_another_profile_is_not_asked(
    database: Database, said: dict[str, str]
) -> None:
    with (
        scripted_server() as server,
        running_api(database, server.url, **said) as api,
    ):
        server.script = whole_answer
        tenant = api.new_tenant()
        assert list(tenant.openai.models.list()) == []
        with pytest.raises(openai.ConflictError) as caught:
            tenant.openai.chat.completions.create(model=api.add_adapter(tenant), messages=ASK)
        assert caught.value.code == "base_not_served"
        assert server.seen == []


def test_who_has_long_been_silent_is_asked_only_after_the_others(two: Two) -> None:
    two.script(whole_answer)
    silent, answering = two.servers
    with transaction(two.api.system) as session:
        session.execute(
            update(InferenceReplica)
            .where(InferenceReplica.url == silent.url)
            .values(beat_at=now() - timedelta(minutes=1))
        )
    for _ in range(8):
        chat(two, model=two.api.add_adapter(two.tenant), stream=False)
    assert two.asked() == [0, 8]
    two.script(fail, whole_answer)
    chat(two, model=BASE, stream=False)
    assert (len(answering.seen), len(silent.seen)) == (1, 1)
