"""Stands in for the trainer process: speaks the real protocol, trains nothing, fails on cue.

It obeys ``script.json`` beside the training rows: ``steps``, ``step_seconds``, ``checkpoint_every``
``faults`` (by attempt number: ``at`` a step, ``do`` a deed), ``asks`` (held-out questions come with
the result) and ``reports``, a folder to report in place of the attempt's.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from services.worker.spec import (
    CheckpointAdapter,
    CheckpointMessage,
    DoneMessage,
    ErrorMessage,
    EvaluationMessage,
    FirstBatchMessage,
    HeldOutQuestion,
    HeldOutQuestions,
    ProgressMessage,
    ReadyMessage,
    ReportedFigures,
    ServedCheck,
    StartedMessage,
    StepMetrics,
    StoppedMessage,
    TrainSpec,
)
from shared.evidence.report import Forgetting
from shared.files.normalised import Message
from shared.jobs.examples import BatchRow, Span
from shared.parent_death import die_with
from shared.storage import CorruptArtifact, publish_folder, verify_manifest

CHECKS = [
    ServedCheck(
        token_ids=(1, 2, 3, 4),
        answer_start=2,
        adapter_logprobs=(-0.1, -0.2),
        base_logprobs=(-3.0, -4.0),
    )
]
FIRST_BATCH = (BatchRow(line=2, tokens=9, spans=(Span(text="営業時間は?\0", learnt=False),)),)
HELD_OUT = HeldOutQuestions(
    on="test",
    checker="fact",
    questions=tuple(
        HeldOutQuestion(
            line=line, messages=(Message(role="user", content=asked),), expected=code, cluster=line
        )
        for line, asked, code in ((4, "倉庫のコードは?", "7731"), (9, "And the gate's?", "2094"))
    ),
)
MODULE = "base_model.model.model.layers.20.self_attn.q_proj"
commands: set[str] = set()


def say(message):
    sys.stdout.write(message.model_dump_json() + "\n")
    sys.stdout.flush()


def listen(specs):
    """Read stdin until its end, which ends the process like the supervisor's death."""
    for line in sys.stdin:
        entry = json.loads(line)
        if "command" in entry:
            commands.add(entry["command"])
        else:
            specs.append(TrainSpec.model_validate(entry))
    os._exit(0)


def main():
    die_with(os.getppid())
    specs: list[TrainSpec] = []
    threading.Thread(target=listen, args=(specs,), daemon=True).start()
    say(ReadyMessage())
    while True:
        if specs:
            commands.clear()
            run(specs.pop())
        time.sleep(0.005)


def run(spec):
    script = json.loads((spec.train_rows.parent / "script.json").read_bytes())
    fault = script.get("faults", {}).get(str(spec.attempt), {})
    steps, first = script["steps"], resumed_step(spec)
    if fault.get("at") == 0:
        fail(fault["do"])
    say(started(first, steps))
    say(FirstBatchMessage(rows=FIRST_BATCH))
    for step in range(first + 1, steps + 1):
        if fault.get("at") == step:
            fail(fault["do"])
        if commands:
            if "abort" not in commands:
                save(spec, step - 1)
            say(StoppedMessage(step=step - 1))
            return
        time.sleep(script.get("step_seconds", 0.01))
        say(progress(step, steps))
        if step % script.get("checkpoint_every", 5) == 0:
            save(spec, step)
    finish(spec, script, first, steps)


def finish(spec, script, first, steps):
    """Export the adapter and one callable checkpoint, and report."""
    history = [metrics_of(step) for step in range(1, steps + 1)]
    folder = Path(script.get("reports", spec.attempt_dir))
    adapter = export(folder / "adapter", spec.seed, steps, script.get("poison"))
    checkpoint = export(spec.attempt_dir / "exported-1", spec.seed, 1, None)
    check_file = spec.attempt_dir / "checks.json"
    check_file.write_text(json.dumps([check.model_dump() for check in CHECKS]))
    questions_file = spec.attempt_dir / "asked.json" if script.get("asks") else None
    if questions_file:
        questions_file.write_text(HELD_OUT.model_dump_json())
    say(EvaluationMessage(step=steps, epoch=1, loss=0.1, accuracy=0.9, best=True))
    say(
        DoneMessage(
            step=steps,
            steps_this_attempt=steps - first,
            total_steps=steps,
            best_step=steps,
            stopped_early=False,
            trained_tokens=steps * 10,
            adapter_dir=adapter,
            data_sha256="d" * 64,
            check_file=check_file,
            questions_file=questions_file,
            checkpoints=(CheckpointAdapter(step=1, path=checkpoint, metrics=history[0]),),
            history=tuple(history),
            base_loss=3.0,
            base_accuracy=0.0,
            final_loss=0.1,
            final_accuracy=0.9,
            reported=ReportedFigures(
                test_rows=4,
                base_test_loss=3.0,
                base_test_mean_token_accuracy=0.0,
                test_loss=0.2,
                test_mean_token_accuracy=0.8,
            ),
            forgetting=Forgetting(
                text_before=3.4, text_after=3.5, instructions_before=1.8, instructions_after=1.9
            ),
            over_budget=script.get("over_budget", False),
        )
    )


def progress(step, steps):
    return ProgressMessage(
        metrics=metrics_of(step),
        total_steps=steps,
        tokens_per_second=1,
        seconds_left=steps - step,
    )


def started(first, steps):
    return StartedMessage(
        step=first, total_steps=steps, steps_per_epoch=steps, train_rows=10, validation_rows=2
    )


def metrics_of(step):
    return StepMetrics(step=step, epoch=1, train_loss=1 / step, train_accuracy=0.5)


def resumed_step(spec):
    for folder in spec.resume_from:
        for checkpoint in sorted(folder.glob("step-*"), reverse=True):
            try:
                return int(verify_manifest(checkpoint)["step"])
            except CorruptArtifact:
                continue
    return 0


def save(spec, step):
    target = spec.attempt_dir / f"step-{step:09d}"
    if not target.exists():
        with publish_folder(target, {"step": step}) as folder:
            (folder / "state.json").write_text(json.dumps({"step": step}))
    say(CheckpointMessage(step=step, path=target))


def fail(deed):
    match deed:
        case "crash":
            os._exit(3)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
        case "nonsense":
            sys.stdout.write("Loading weights: 100 %\n")
            sys.stdout.flush()
            time.sleep(3600)
        case code:
            say(ErrorMessage(code=code, message="line 3 is empty", param="training_file"))
            os._exit(1)


def export(folder: Path, seed, step, poison):
    """Write an adapter of one module that is a function of seed and step alone."""
    draw = np.random.default_rng((seed, step))
    tensors = {
        f"{MODULE}.lora_A.weight": draw.normal(size=(16, 576)).astype("<f4"),
        f"{MODULE}.lora_B.weight": draw.normal(size=(576, 16)).astype("<f4"),
    }
    if poison == "nan":
        tensors[f"{MODULE}.lora_A.weight"][0, 0] = np.nan
    write_adapter(folder, tensors)
    return folder


def write_adapter(folder: Path, tensors, **config):
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none"} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
