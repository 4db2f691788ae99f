"""``tailor compare``: does fine-tuning pay on these rows? Asks, follows, and shows the report."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from cli.client import openai_client, served_base
from cli.console import console
from cli.errors import CommandFailed
from cli.file import upload_file
from cli.options import DataDir
from shared.evidence.arms import Arm

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

    from shared.evidence.report import Report

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
POLL_SECONDS = 1.0


class FileFirst(TyperGroup):
    """Takes what is no sub-command for the file of ``tailor compare FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before a file."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=FileFirst,
    help="Compare fine-tuning with few-shot and retrieval: tailor compare FILE.",
    no_args_is_help=True,
)

ComparisonId = Annotated[str, typer.Argument(help="cmp-…", show_default=False)]


@app.command(hidden=True)
def run(  # noqa: PLR0917  Typer passes by name; these are the command's options
    training_file: Annotated[
        str, typer.Argument(help="Id of an uploaded file, or a path to upload.", show_default=False)
    ],
    held_out: Annotated[str | None, typer.Option(help="Rows to ask: id or path.")] = None,
    document: Annotated[
        list[str] | None, typer.Option(help="To retrieve from: id or path; may be repeated.")
    ] = None,
    model: Annotated[str, typer.Option(help="Base model; by default the served one.")] = "",
    arm: Annotated[list[Arm] | None, typer.Option(help="Only these; may be repeated.")] = None,
    checker: Annotated[str | None, typer.Option(help="By default chosen by the data.")] = None,
    questions: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 200,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    data_dir: DataDir = None,
) -> None:
    """Compare before any training what the base model can do with these rows."""
    with openai_client(data_dir) as client:
        asked = {
            "model": model or served_base(client),
            "training_file": _file_id(training_file, data_dir),
        }
        common = _asked(held_out, document, arm, checker, questions, seed, data_dir)
        follow_to_report(client, create(client, asked | common))


@app.command("job")
def compare_job(  # noqa: PLR0917  as above
    job_id: Annotated[str, typer.Argument(help="ftjob-…", show_default=False)],
    held_out: Annotated[
        str | None,
        typer.Option(help="Rows it was not trained on: id or path; unless it set some apart."),
    ] = None,
    document: Annotated[
        list[str] | None, typer.Option(help="To retrieve from: id or path; may be repeated.")
    ] = None,
    arm: Annotated[list[Arm] | None, typer.Option(help="Only these; may be repeated.")] = None,
    checker: Annotated[str | None, typer.Option(help="By default chosen by the data.")] = None,
    questions: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 200,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    data_dir: DataDir = None,
) -> None:
    """Compare a job's model with all that needs no training."""
    with openai_client(data_dir) as client:
        common = _asked(held_out, document, arm, checker, questions, seed, data_dir)
        follow_to_report(client, create(client, {"job": job_id} | common))


SHARES = (0.25, 0.5)
"""Of the rows, with which a learning curve begins; the job itself learnt all of them."""


@app.command("curve")
def compare_curve(
    job_id: Annotated[
        str, typer.Argument(help="ftjob-…, made with --compare.", show_default=False)
    ],
    data_dir: DataDir = None,
) -> None:
    """Train on a quarter and on half of a job's rows, too, and ask all three the same questions."""
    out = console()
    with openai_client(data_dir) as client:
        whole = of_job(client, job_id)
        out.print(
            f"two further trainings, on {' and '.join(f'{s:.0%}' for s in SHARES)} of the rows"
        )
        asked = get(client, whole)
        job = client.fine_tuning.jobs.retrieve(job_id)
        parts = [of_job(client, _share_of(client, job, asked, share)) for share in SHARES]
        for comparison_id in (*parts, whole):
            comparison = follow(client, comparison_id, out)
            if comparison["status"] != "succeeded":
                raise CommandFailed(_line(comparison))
        _print(report_of(client, whole), out)
        out.print(f"as a page: tailor compare export {whole} --html report.html")


def _share_of(client: "OpenAI", job: "FineTuningJob", asked: dict[str, Any], share: float) -> str:
    """Create a job that learns a share of what another did, and asks the same; return its id."""
    numbers = job.hyperparameters.to_dict()
    kept = {name: numbers[name] for name in ("batch_size", "learning_rate_multiplier")}
    common = ("held_out_file", "checker", "questions", "max_tokens", "seed")
    return client.fine_tuning.jobs.create(
        model=job.model,
        training_file=job.training_file,
        seed=job.seed,
        extra_body={
            "validation_file": job.validation_file,
            "method": {"type": "supervised", "supervised": {"hyperparameters": kept}},
            "x_lora": {"rank": numbers["rank"]},
            "x_forgetting_budget": numbers["forgetting_budget"],
            "x_training_share": share,
            "x_compare": {name: asked[name] for name in common}
            | {"arms": [Arm.ZERO_SHOT, Arm.TUNED]},
        },
    ).id


@app.command()
def show(comparison_id: ComparisonId, data_dir: DataDir = None) -> None:
    """Show a comparison's report, or how far it is."""
    with openai_client(data_dir) as client:
        comparison = get(client, comparison_id)
        if comparison["status"] == "succeeded":
            _print(report_of(client, comparison_id), console())
        else:
            console().print(_line(comparison))


@app.command("list")
def list_comparisons(
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20, data_dir: DataDir = None
) -> None:
    """List the newest comparisons."""
    table = Table("comparison", "status", "base model", "job", "verdict")
    with openai_client(data_dir) as client:
        for each in _get(client, f"/comparisons?limit={limit}")["data"]:
            verdict = (each["verdict"] or {}).get("kind", "")
            table.add_row(each["id"], each["status"], each["model"], each["job"] or "", verdict)
    console().print(table)


@app.command()
def export(  # noqa: PLR0917  as above
    comparison_id: ComparisonId,
    html: Annotated[Path | None, typer.Option(help="Write the report as one page.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write it as data.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Write every answer as JSON lines.")] = None,
    language: Annotated[str, typer.Option(help="Of the page: en or ja.")] = "en",
    data_dir: DataDir = None,
) -> None:
    """Write a report as a page to mail, as data, or with every arm's answers."""
    if not (html or as_json or rows):
        raise CommandFailed("name what to write: --html, --json or --rows")
    if language not in {"en", "ja"}:
        raise CommandFailed("--language must be en or ja")
    with openai_client(data_dir) as client:
        report = report_of(client, comparison_id)
        if html:
            from shared.evidence.page import html as page  # noqa: PLC0415  slow to import

            html.write_text(page(report, "ja" if language == "ja" else "en"), encoding="utf-8")
        if as_json:
            as_json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if rows:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows_of(client, comparison_id)]
            rows.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@app.command()
def cancel(comparison_id: ComparisonId, data_dir: DataDir = None) -> None:
    """Ask for a comparison to be cancelled; its answers so far are kept."""
    with openai_client(data_dir) as client:
        path = f"/comparisons/{comparison_id}/cancel"
        ended: Any = client.post(path, cast_to=object)
    typer.echo(f"{ended['id']} {ended['status']}")


@app.command()
def delete(comparison_id: ComparisonId, data_dir: DataDir = None) -> None:
    """Delete an ended comparison with all its answers."""
    with openai_client(data_dir) as client:
        client.delete(f"/comparisons/{comparison_id}", cast_to=object)
    typer.echo(f"{comparison_id} deleted")


def create(client: "OpenAI", asked: dict[str, Any]) -> str:
    """Create a comparison; return its id."""
    made: Any = client.post("/comparisons", cast_to=object, body=asked)
    return str(made["id"])


def get(client: "OpenAI", comparison_id: str) -> dict[str, Any]:
    """Return a comparison as it is now."""
    return _get(client, f"/comparisons/{comparison_id}")


def of_job(client: "OpenAI", job_id: str) -> str:
    """Return the id of the comparison that a job was created with."""
    newest = _get(client, "/comparisons?limit=100")["data"]
    return str(next(each["id"] for each in newest if each["job"] == job_id))


def report_of(client: "OpenAI", comparison_id: str) -> "Report":
    """Return the report of a comparison that has succeeded."""
    from shared.evidence.report import Report  # noqa: PLC0415  only here

    return Report.model_validate(_get(client, f"/comparisons/{comparison_id}/report"))


def rows_of(client: "OpenAI", comparison_id: str) -> Iterator[dict[str, Any]]:
    """Yield every question with its answers."""
    more, after = True, ""
    while more:
        page = _get(client, f"/comparisons/{comparison_id}/rows?limit=100{after}")
        yield from page["data"]
        more = page["has_more"]
        after = f"&after={page['data'][-1]['line']}" if more else ""


def follow(client: "OpenAI", comparison_id: str, out: Console) -> dict[str, Any]:
    """Say how far a comparison is until it has ended; return it as it then is."""
    last = ""
    with out.status("") as status:
        while True:
            comparison = get(client, comparison_id)
            line = _line(comparison)
            status.update(line)
            mark = f"{comparison['status']} {(comparison['progress'] or {}).get('arm', '')}"
            if not out.is_terminal and mark != last:
                out.print(line)
            last = mark
            if comparison["status"] in FINISHED:
                return comparison
            time.sleep(POLL_SECONDS)


def follow_to_report(client: "OpenAI", comparison_id: str) -> None:
    """Follow a comparison to its end, and print its report."""
    out = console()
    out.print(comparison_id)
    comparison = follow(client, comparison_id, out)
    if comparison["status"] != "succeeded":
        raise CommandFailed(_line(comparison))
    _print(report_of(client, comparison_id), out)
    out.print(f"as a page: tailor compare export {comparison_id} --html report.html")


def _line(comparison: dict[str, Any]) -> str:
    progress, error = comparison["progress"], comparison["error"]
    if error:
        return f"{comparison['id']} {comparison['status']}: {error['message']}"
    if progress and comparison["status"] == "running":
        far = f"{progress['asked']}/{progress['total']} answers"
        return f"comparing: {far}, arm {progress.get('arm') or '–'}"
    return f"{comparison['id']} {comparison['status']}"


def _print(report: "Report", out: Console) -> None:
    from cli.compare_report import print_report  # noqa: PLC0415  reads the words of reports

    print_report(out, report)


def _asked(  # noqa: PLR0917  what both commands take
    held_out: str | None,
    documents: list[str] | None,
    arms: list[Arm] | None,
    checker: str | None,
    questions: int,
    seed: int | None,
    data_dir: Path | None,
) -> dict[str, Any]:
    return {
        "held_out_file": _file_id(held_out, data_dir) if held_out else None,
        "documents": [_file_id(each, data_dir, "user_data") for each in documents or []],
        "arms": [arm.value for arm in arms] if arms else None,
        "checker": checker,
        "questions": questions,
        "seed": seed,
    }


def _file_id(id_or_path: str, data_dir: Path | None, purpose: str = "fine-tune") -> str:
    if id_or_path.startswith("file-") and not Path(id_or_path).exists():
        return id_or_path
    return upload_file(Path(id_or_path), data_dir, purpose)


def _get(client: "OpenAI", path: str) -> dict[str, Any]:
    found: Any = client.get(path, cast_to=object)
    return dict(found)
