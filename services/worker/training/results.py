"""What a finished training leaves in its attempt's folder, for the supervisor to publish."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from services.worker.spec import KEPT_EPOCH_ENDS, CheckpointAdapter, ReportedFigures, TrainSpec
from services.worker.training.evaluate import evaluate, write_served_check
from services.worker.training.loop import Run
from services.worker.training.lora import export
from shared.evidence.report import Forgetting


@dataclass(frozen=True)
class Results:
    """Where they are."""

    adapter: Path
    served_check: Path
    checkpoints: tuple[CheckpointAdapter, ...]
    reported: ReportedFigures | None
    forgetting: Forgetting


def export_results(spec: TrainSpec, run: Run, context_length: int) -> Results:
    """Write the best adapter, which is loaded, callable checkpoints and figures for serving.

    An error leaves no adapter: half a one helps nobody, least of all a disk that is full.
    """
    files = spec.attempt_dir
    adapter = run.model.adapter
    config = adapter.config(spec.base_model)
    try:
        export(files / "adapter", run.best, config)
        write_served_check(files / "served_check.json", run.model, run.validation, context_length)
        reported, forgetting = report_figures(run), run.memory.forgetting()
        checkpoints = tuple(_callable_checkpoints(files, run, config))
    except Exception:
        for folder in files.glob("adapter*"):
            shutil.rmtree(folder)
        raise
    return Results(
        adapter=files / "adapter",
        served_check=files / "served_check.json",
        checkpoints=checkpoints[::-1],
        reported=reported,
        forgetting=forgetting,
    )


def report_figures(run: Run) -> ReportedFigures | None:
    """Score base and best adapter, which is loaded, on the rows that nothing has seen before.

    Every process of a team scores its own.
    """
    if run.test is None:
        return None
    working = partial(run.report.working, "evaluating")
    base, best = (
        evaluate(run.model, run.test, working, team=run.team, adapted=adapted)
        for adapted in (False, True)
    )
    (rows,) = run.team.sums(len(run.test.rows))
    return ReportedFigures(
        test_rows=int(rows),
        base_test_loss=base.loss,
        base_test_mean_token_accuracy=base.accuracy,
        test_loss=best.loss,
        test_mean_token_accuracy=best.accuracy,
    )


def _callable_checkpoints(
    files: Path, run: Run, config: dict[str, Any]
) -> Iterator[CheckpointAdapter]:
    """Export the kept end-of-epoch checkpoints of all attempts, newest first."""
    for found in islice(run.shelf.epoch_ends(run.plan.steps_per_epoch), KEPT_EPOCH_ENDS):
        step = found.state.step
        folder = files / f"adapter-step-{step:09d}"
        export(folder, found.adapter, config)
        yield CheckpointAdapter(step=step, path=folder, metrics=run.state.history[step - 1])
