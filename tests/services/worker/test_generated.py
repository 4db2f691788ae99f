"""Held-out questions to the new model: scored, counted, a few kept, and never waited for long."""

import threading
import time
from contextlib import nullcontext

import pytest

from services.worker.comparing import asking
from services.worker.comparing.asking import Inference
from services.worker.comparing.orders import EndedByOrder, Orders
from services.worker.generated import KEPT_CHARACTERS, Generated, generate
from services.worker.lease import Order
from services.worker.spec import HeldOutQuestion, HeldOutQuestions
from shared.files.normalised import Message
from tests.services.worker.comparing.model_server import SECRET, ModelServer, Reply, question_in


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(asking, "PAUSES_SECONDS", (0.01,))
    server = ModelServer()
    yield server
    server.close()


def held_out(count, *, checker="fact", of_cluster=1) -> HeldOutQuestions:
    """Questions "q 0", "q 1", …, whose answers are "a0", "a1", …."""
    questions = [
        HeldOutQuestion(
            line=10 * n,
            messages=(
                Message(role="system", content="Be short."),
                Message(role="user", content=f"q {n}"),
            ),
            expected=f"a{n}",
            cluster=n // of_cluster,
        )
        for n in range(count)
    ]
    return HeldOutQuestions(on="test", checker=checker, questions=tuple(questions))


def ask(model, questions, *, seconds=10.0, orders=None) -> Generated | None:
    inference = Inference(lambda _: nullcontext(model.url), SECRET, "org-1", "ad_1", in_flight=4)
    orders = orders or Orders()
    return generate(inference, "ad_1", questions, seconds=seconds, seed=7, orders=orders)


def number_in(body) -> int:
    return int(question_in(body).split()[1])


def test_the_answers_are_scored_with_an_interval_and_asked_as_the_tenants(model):
    model.script = lambda body: Reply(f"It is a{min(number_in(body), 17)}.")
    found = ask(model, held_out(20))
    assert found
    assert (found.figures["checker"], found.figures["on"]) == ("fact", "test")
    assert (found.figures["n"], found.figures["score"]) == (20, 0.9)
    low, high = found.figures["interval"]
    assert 0.6 < low < 0.9 < high < 1
    assert {body["model"] for body in model.asked} == {"ad_1"}
    assert {headers["x-tailor-tenant"] for headers in model.sent} == {"org-1"}
    assert {message["role"] for body in model.asked for message in body["messages"]} == {
        "system",
        "user",
    }
    related = ask(model, held_out(20, of_cluster=5))
    assert related
    assert related.figures["interval"][0] < low


def test_graded_scores_have_a_mean(model):
    model.script = lambda body: Reply(f"a{number_in(body)} and no more")
    found = ask(model, held_out(20, checker="token_f1"))
    assert found
    assert found.figures["score"] == pytest.approx(0.4)
    assert found.figures["interval"][0] < 0.4 < found.figures["interval"][1]


def test_the_best_the_worst_and_some_others_are_kept_none_twice(model):
    model.script = lambda body: Reply(f"a{number_in(body)}" + " x" * number_in(body))
    found = ask(model, held_out(9, checker="token_f1"))
    assert found
    best, worst, drawn = found.answers.best, found.answers.worst, found.answers.random
    assert [each.line for each in best] == [0, 10, 20]
    assert [each.line for each in worst] == [80, 70, 60]
    assert len({each.line for each in (*best, *worst, *drawn)}) == 9
    assert (best[1].question, best[1].expected, best[1].answer) == ("q 1", "a1", "a1 x")
    assert best[0].score == 1 > best[1].score > worst[0].score


@pytest.mark.parametrize("count", [1, 4])
def test_few_answers_are_each_kept_once(model, count):
    model.script = lambda _: Reply("a\0" * KEPT_CHARACTERS)
    found = ask(model, held_out(count))
    assert found
    kept = (*found.answers.best, *found.answers.worst, *found.answers.random)
    assert len(kept) == len({each.line for each in kept}) == found.figures["n"] == count
    assert kept[0].answer == "a\ufffd" * (KEPT_CHARACTERS // 2) + "…"


def test_what_is_not_answered_in_time_is_not_counted(model, monkeypatch):
    monkeypatch.setattr(asking, "SAVE_SECONDS", 0.01)
    stuck = threading.Event()

    def script(body):
        if number_in(body) >= 8:
            stuck.wait(10)
        return Reply(f"a{number_in(body)}")

    model.script = script
    began = time.monotonic()
    found = ask(model, held_out(20), seconds=0.5)
    assert time.monotonic() - began < 5
    stuck.set()
    assert found
    assert (found.figures["n"], found.figures["score"]) == (8, 1)


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (Reply(status=503), 0.2),
        (Reply(status=404, error={"code": "model_not_found"}), 10),
        (Reply(status=400, error={"param": "input_tokens"}), 10),
    ],
    ids=["away", "gone", "refused"],
)
def test_without_an_answer_there_is_no_figure_and_no_error(model, reply, seconds):
    model.script = lambda _: reply
    assert ask(model, held_out(3), seconds=seconds) is None


def test_an_order_ends_the_asking(model):
    orders = Orders()

    def script(body):
        orders.give(Order.CANCEL)
        return Reply(status=503)

    model.script = script
    with pytest.raises(EndedByOrder):
        ask(model, held_out(3), orders=orders)
