"""Questions to a service that answers, refuses, breaks off, is away and comes back."""

import asyncio
import threading
from contextlib import nullcontext

import pytest

from services.worker.comparing import asking
from services.worker.comparing.asking import Answer, Ask, Inference, ModelGone, ask_all
from services.worker.comparing.orders import EndedByOrder, Orders
from services.worker.lease import Order
from shared.inference import cache_salt
from tests.services.worker.comparing.model_server import SECRET, ModelServer, Reply, question_in

TOO_LONG = {"message": "the context is 2048", "param": "input_tokens", "code": 400}

pytestmark = pytest.mark.slow  # imports what the comparer does


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(asking, "PAUSES_SECONDS", (0.01,))


def ask(model, count=1, *, orders=None, save=None, in_flight=4, url=None) -> list[Answer]:
    """Ask ``count`` questions "0", "1", …; return what was saved, by line."""
    answers: list[Answer] = []
    address = nullcontext(url or model.url)
    inference = Inference(lambda _: address, SECRET, "org-1", "salt-key", in_flight)
    asks = (Ask(n, [{"role": "user", "content": f"{n}"}]) for n in range(count))
    asyncio.run(
        ask_all(
            inference,
            "base",
            asks,
            max_tokens=8,
            save=save or answers.extend,
            orders=orders or Orders(),
        )
    )
    return sorted(answers, key=lambda answer: answer.line)


def test_an_answer_comes_with_its_tokens_and_times(model):
    model.script = lambda _: Reply("五\u2028つ です", finish="length")
    (answer,) = ask(model)
    assert (answer.text, answer.cut, answer.failed) == ("五\u2028つ です", True, None)
    assert (answer.prompt_tokens, answer.completion_tokens) == (1, 3)
    assert answer.first_token_seconds is not None
    assert answer.answer_seconds is not None
    assert 0 < answer.first_token_seconds <= answer.answer_seconds


def test_a_question_is_a_greedy_request_of_the_tenant_in_its_own_prefix_cache(model):
    ask(model)
    (body,), (headers,) = model.asked, model.sent
    assert headers["x-tailor-tenant"] == "org-1"
    assert body["cache_salt"] == cache_salt("salt-key", "org-1")
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("base", 0, 8)


def test_only_so_many_are_asked_at_a_time_and_in_order(model):
    free, busy, most = threading.Semaphore(3), [], []

    def script(body):
        assert free.acquire(blocking=False)
        busy.append(body)
        most.append(len(busy))
        threading.Event().wait(0.005)
        busy.remove(body)
        free.release()
        return Reply(question_in(body))

    model.script = script
    answers = ask(model, 12, in_flight=3)
    assert [answer.text for answer in answers] == [str(n) for n in range(12)]
    assert max(most) > 1
    assert all(abs(int(question_in(body)) - n) < 3 for n, body in enumerate(model.asked))


@pytest.mark.parametrize("status", [401, 408, 425, 429, 500, 503])
def test_a_service_that_is_away_or_busy_is_asked_again(model, status):
    replies = [Reply(status=status)] * 5 + [Reply("1", broken=True), Reply("ja")]
    model.script = lambda _: replies.pop(0)
    assert [answer.text for answer in ask(model)] == ["ja"]


def test_a_service_that_does_not_listen_is_asked_again_when_it_does(model):
    port = model.server_port
    model.close()
    servers = []

    def come_back():
        server = ModelServer(port)
        servers.append(server)

    timer = threading.Timer(0.2, come_back)
    timer.start()
    answers = ask(model, 3, url=f"http://127.0.0.1:{port}")
    assert [answer.text for answer in answers] == ["0", "1", "2"]
    servers[0].close()


def test_a_prompt_longer_than_the_context_is_a_failed_answer_at_once(model):
    model.script = lambda _: Reply(status=400, error=TOO_LONG)
    (answer,) = ask(model)
    assert answer == Answer(0, failed="context_length_exceeded")
    assert len(model.asked) == 1


def test_another_refusal_counts_when_it_comes_again_and_again(model):
    replies = [Reply(status=400), Reply(status=400), Reply("ja")]
    model.script = lambda _: replies.pop(0)
    assert ask(model)[0].text == "ja"
    model.script = lambda _: Reply(status=422, error={"code": "no"})
    assert ask(model)[0] == Answer(0, failed="no")


def test_a_model_that_is_gone_ends_the_asking(model):
    model.script = lambda _: Reply(status=404, error={"code": "model_not_found"})
    with pytest.raises(ModelGone, match="model_not_found"):
        ask(model, 9)


def test_an_order_ends_the_asking_soon_and_keeps_what_was_answered(model):
    orders = Orders()
    kept: list[Answer] = []

    def script(body):
        if question_in(body) == "5":
            orders.give(Order.DRAIN)
            model.left.wait(10)
        return Reply("x")

    model.script = script
    with pytest.raises(EndedByOrder):
        ask(model, 50, orders=orders, save=kept.extend, in_flight=1)
    assert [answer.line for answer in kept] == [0, 1, 2, 3, 4]


def test_what_saving_raises_ends_the_asking(model, monkeypatch):
    monkeypatch.setattr(asking, "SAVE_SECONDS", 0)

    def save(_answers):
        raise LookupError

    with pytest.raises(LookupError):
        ask(model, 50, save=save, in_flight=1)
    assert len(model.asked) <= 2
