"""Follow a job to its end: a bar with step, loss and time left, then what came of it.

A terminal gets a live bar; anything else (a log, a pipe) gets a line at each tenth of the way.
"""

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

FINISHED = frozenset({"succeeded", "failed", "cancelled", "paused"})
POLL_SECONDS = 0.5


def watch(client: "OpenAI", job_id: str, console: Console) -> "FineTuningJob":
    """Show the job's progress until it is finished or paused; return it as it then is."""
    with _Display(console) as display:
        while True:
            job = client.fine_tuning.jobs.retrieve(job_id)
            display.show(job.status, extra(job, "progress"))
            if job.status in FINISHED:
                return job
            time.sleep(POLL_SECONDS)


def extra(job: "FineTuningJob", name: str) -> dict[str, Any]:
    """Return one of Tailor's own fields of a job (OpenAI's client keeps unknown fields)."""
    return dict((job.model_extra or {}).get(name) or {})


def summarise(job: "FineTuningJob", console: Console) -> None:
    """Print how the job ended, and how to call the model it made."""
    if job.status != "succeeded":
        reason = job.error.message if job.error else ""
        console.print(f"{job.id} {job.status}" + (f": {reason}" if reason else ""))
        return
    console.print(_figures(job))
    console.print(f"model     {job.fine_tuned_model}", soft_wrap=True)
    console.print(f"try it    tailor chat {job.fine_tuned_model}", soft_wrap=True)


def _figures(job: "FineTuningJob") -> Table:
    metrics = extra(job, "metrics")
    table = Table("on the validation rows", "before", "after", title=f"{job.id} succeeded")
    table.add_row("loss", _loss(metrics.get("base_loss")), _loss(metrics.get("final_loss")))
    table.add_row(
        "token accuracy",
        _percent(metrics.get("base_accuracy")),
        _percent(metrics.get("final_accuracy")),
    )
    if metrics.get("reported_on") == "test":
        table.add_row(
            "test rows: loss", _loss(metrics["base_test_loss"]), _loss(metrics["test_loss"])
        )
        table.add_row(
            "test rows: token accuracy",
            _percent(metrics["base_test_mean_token_accuracy"]),
            _percent(metrics["test_mean_token_accuracy"]),
        )
    if generated := metrics.get("generated"):
        label = f"{generated['on']} rows: {generated['n']} answers, {generated['checker']}"
        low, high = map(_percent, generated["interval"])
        table.add_row(label, "", f"{_percent(generated['score'])} ({low} to {high})")
    if forgetting := metrics.get("forgetting"):
        for name, label in (("text", "general text"), ("instructions", "general questions")):
            before, after = (_loss(forgetting[f"{name}_{when}"]) for when in ("before", "after"))
            table.add_row(f"{label}: loss", before, after)
    table.add_row("duration", "", duration((job.finished_at or job.created_at) - job.created_at))
    return table


def duration(seconds: float) -> str:
    """Return ``3 min 05 s`` or ``42 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


class _Display:
    """The bar on a terminal, lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=36),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("waiting", total=None, text="")
        self._last_line = ""

    def show(self, status: str, progress: dict[str, Any]) -> None:
        """Bring the display up to date."""
        step, total = progress.get("step", 0), progress.get("total_steps")
        text = _progress_text(progress)
        self._bar.update(self._task, description=status, completed=step, total=total, text=text)
        if not self._console.is_terminal:
            self._print_line(status, step, total, text)

    def _print_line(self, status: str, step: int, total: int | None, text: str) -> None:
        mark = f"{status} {10 * step // total if total else 0}"
        if mark != self._last_line:
            self._last_line = mark
            self._console.print(f"{status}  {text}".rstrip())

    def __enter__(self) -> "_Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _progress_text(progress: dict[str, Any]) -> str:
    if "waiting" in progress:
        return str(progress["waiting"])
    parts = []
    if progress.get("total_steps"):
        parts.append(f"step {progress['step']}/{progress['total_steps']}")
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.4f}")
    if progress.get("seconds_left") is not None:
        parts.append(f"{duration(progress['seconds_left'])} left")
    if progress.get("total") and progress.get("phase") in _PHASES:
        parts.append(
            f"{_PHASES[progress['phase']]} {100 * progress['done'] // progress['total']} %"
        )
    return "  ".join(parts)


_PHASES = {
    "reading": "reading the rows",
    "prefix": "preparing the rows",
    "evaluating": "evaluating",
}
"""What is said of work that takes long; micro-batches of a step are no news."""
