"""Log lines are JSON with stable names, and docs/operations.md lists those of the source."""

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.telemetry import JsonFormatter, log_context, log_event

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
LOGGERS = {"log", "logger", "_logger"}


def written(**arguments: Any) -> Any:
    """Return the line that a log call with these arguments makes."""
    record = logging.getLogger("test").makeRecord(
        "test", logging.INFO, "file", 1, "said %s", ("so",), None, **arguments
    )
    return json.loads(JsonFormatter("api").format(record))


def test_a_line_has_its_event_what_it_tells_and_the_bound_ids():
    with log_context(request_id="req_1"):
        line = written(extra=log_event("lease_expired", job_id="ftjob-1", attempt=2))
    del line["time"]
    assert line == {
        "level": "info",
        "service": "api",
        "logger": "test",
        "event": "lease_expired",
        "message": "said so",
        "request_id": "req_1",
        "job_id": "ftjob-1",
        "attempt": 2,
    }


def test_a_librarys_line_has_no_event():
    assert "event" not in written()
    assert "event" not in written(extra={"event": object()})


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_log_call(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id in LOGGERS
    )


def is_log_event(call: ast.expr) -> bool:
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "log_event"
    )


def sources() -> list[Path]:
    folders = ("services", "shared", "cli", "deploy")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="module")
def found() -> list[tuple[str, ast.Call]]:
    """Every call in the source, with its place."""
    return [
        (f"{path.relative_to(ROOT)}:{call.lineno}", call)
        for path in sources()
        for call in calls(ast.parse(path.read_text()))
    ]


def test_every_line_that_the_source_writes_has_an_event(found):
    # A name is handed on by a function whose callers say log_event.
    nameless = [
        place
        for place, call in found
        if is_log_call(call)
        and not any(
            word.arg == "extra" and (is_log_event(word.value) or isinstance(word.value, ast.Name))
            for word in call.keywords
        )
    ]
    assert nameless == []


def test_the_events_of_the_source_are_those_of_the_documentation(found):
    used = {ast.literal_eval(call.args[0]) for _place, call in found if is_log_event(call)}
    section = (ROOT / "docs/operations.md").read_text().split("\n## Log lines\n")[1]
    cells = re.findall(r"^\| (`.+?) \|", section.split("\n## ")[0], re.MULTILINE)
    documented = [name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)]
    assert sorted(used) == sorted(documented)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in used)
