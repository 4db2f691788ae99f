from pathlib import Path

from rich.console import Console

from cli.client import client_of
from cli.connection import Connection
from cli.demo_report import ask_all, print_answers, print_last_line, print_loss_curve
from examples.datasets import DataSet, Question
from tests.cli.conftest import Reply

DATA = DataSet(
    "窯",
    Path("train.jsonl"),
    (
        Question("error_code", "Which code when the lid is open?", "E12"),
        Question("error_code", "Which code when the fan stops?", "E26"),
        Question("hours", "When is the shop open?", "9:30 to 13:00"),
    ),
)
BASE = ["I do not know.", "It is E12.", "Always."]
TUNED = ["The kiln shows E12.", "E26 or E12", "From 9:30 to 13:00."]


def _completion(text: str) -> Reply:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Reply(body)


def test_the_last_line_has_the_promised_form(capsys) -> None:
    print_last_line(DATA, BASE, TUNED)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "demo: held-out accuracy base 0% -> tuned 66.7%"


def test_the_table_shows_each_question_with_both_answers_and_verdicts() -> None:
    console = Console(width=150, record=True, quiet=False)
    print_answers(console, DATA, BASE, TUNED)
    text = console.export_text()
    for question in DATA.questions:
        assert question.text in text
    assert (text.count("✓"), text.count("✗")) == (2, 4)


def test_every_question_is_asked_of_every_model_without_a_system_prompt(api) -> None:
    api.on("POST /chat/completions", _completion(" E12 "))
    with client_of(Connection(api.base_url, "sk-test")) as client:
        answers = ask_all(client, ["base", "ft:x"], DATA.questions)
    assert answers == [["E12"] * 3, ["E12"] * 3]
    asked = [(r.json["model"], r.json["messages"][0]["content"]) for r in api.requests]
    assert sorted(asked) == sorted((m, q.text) for m in ("base", "ft:x") for q in DATA.questions)
    assert all(len(request.json["messages"]) == 1 for request in api.requests)
    assert all(request.json["temperature"] == 0 for request in api.requests)


def test_the_loss_curve_is_drawn_from_the_jobs_events(api) -> None:
    events = [
        {
            "id": f"ftevent-{step}",
            "object": "fine_tuning.job.event",
            "created_at": step,
            "level": "info",
            "type": "metrics",
            "message": "Step",
            "data": {"step": step, "train_loss": 2.0 / step, "valid_loss": None},
        }
        for step in (3, 2, 1)
    ]
    page = {"object": "list", "data": events, "has_more": False}
    api.on("GET /fine_tuning/jobs/ftjob-1/events", Reply(page))
    console = Console(width=100, record=True)
    with client_of(Connection(api.base_url, "sk-test")) as client:
        print_loss_curve(console, client, "ftjob-1")
    assert "training" in console.export_text()
