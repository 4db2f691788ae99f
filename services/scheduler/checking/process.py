"""Runs the checker's protocol: one spec after the other, with tokenizers kept between them."""

import logging
import os
import resource
import sys
import traceback
from typing import TextIO

import shared.datareport.lengths  # noqa: F401  analyse would load it with the first job
from services.scheduler.checking.spec import CheckBroke, CheckResult, CheckSpec, JobError
from shared.datareport.analyse import Analysis, Base, analyse
from shared.datareport.language import language_of
from shared.datareport.sensitive import kinds_in
from shared.telemetry import configure_logging, log_context, log_event

CODES = {"training_file": "invalid_training_file", "validation_file": "invalid_validation_file"}

log = logging.getLogger(__name__)


def main() -> None:
    """Serve specs from stdin until it ends."""
    out = _claim_stdout()
    configure_logging("checker")
    _warm_up()
    for line in sys.stdin:
        spec = CheckSpec.model_validate_json(line)
        with log_context(job_id=spec.job_id):
            out.write(_serve(spec).model_dump_json() + "\n")
            out.flush()


def _claim_stdout() -> TextIO:
    """Return the protocol's stream; whatever libraries print from now on goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _warm_up() -> None:
    """Load what the libraries load late, so that the first job does not wait for it."""
    kinds_in("-----BEGIN")
    language_of("Is there anything in this file that nobody would expect?")


def _serve(spec: CheckSpec) -> CheckResult | CheckBroke:
    _grant_cpu(spec.cpu_seconds)
    try:
        analysis = check(spec)
    except Exception as error:  # noqa: BLE001  whatever a file trips, the scheduler is told
        # Not its text and not its cause: they may quote the row.
        frames = "".join(traceback.format_tb(error.__traceback__))
        data = {"error": type(error).__name__, "frames": frames}
        log.error("the check failed", extra=log_event("check_broke", **data))
        return CheckBroke(broke=type(error).__name__)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return CheckResult(report=analysis.report, error=verdict(analysis), peak_mb=peak)


def check(spec: CheckSpec) -> Analysis:
    """Tokenise and analyse a job's files."""
    base = Base(spec.base_model, spec.base_folder, spec.context_length)
    return analyse(spec.training_rows, spec.validation_rows, base=base, n_epochs=spec.n_epochs)


def verdict(analysis: Analysis) -> JobError | None:
    """Return the job's error, which names all unusable rows of both files; None when all are."""
    faulty = {file: rows for file, rows in analysis.refusals.items() if rows.count}
    if not faulty:
        return None
    sentences = []
    for file, rows in faulty.items():
        name = file.replace("_", " ")
        sentences.append(f"The job failed due to an invalid {name}. {rows.text()}")
    first = next(iter(faulty))
    return JobError(code=CODES[first], message=" ".join(sentences), param=first)


def _grant_cpu(seconds: int) -> None:
    """Let this process use so many seconds from now on; the kernel ends it after that."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, resource.RLIM_INFINITY))
