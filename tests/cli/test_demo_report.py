from rich.console import Console

from cli.client import client_of
from cli.connection import Connection
from cli.demo_report import print_answers, print_last_line, print_loss_curve
from tests.cli.conftest import Reply
from tests.shared.evidence.reports import full


def _row(question: str, expected: str, **answers: tuple[str, float]) -> dict[str, object]:
    shown = [{"arm": arm, "answer": text, "score": s} for arm, (text, s) in answers.items()]
    return {"question": question, "expected": expected, "answers": shown}


ROWS = [
    _row("Which code for the lid?", "E12", zero_shot=("No idea.", 0), tuned=("It is E12.", 1)),
    _row("When is it open?", "9:30", zero_shot=("Always.", 0), tuned=("E26 or 9:30", 0)),
]


def test_the_last_line_never_shows_the_tuned_model_without_the_best_of_the_others(capsys) -> None:
    report = full()
    print_last_line(report)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"demo: {report.verdict.kind} (zero_shot ")
    assert f", {report.verdict.best_untuned} " in last
    assert ", tuned " in last


def test_the_table_shows_each_question_with_both_answers_and_verdicts() -> None:
    console = Console(width=150, record=True, quiet=False)
    print_answers(console, ROWS)
    text = console.export_text()
    for row in ROWS:
        assert str(row["question"]) in text
    assert (text.count("✓"), text.count("✗")) == (1, 3)


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
