"""What a comparison costs: 200 questions in seven arms, and what the prefix cache brings.

    python -m benchmarks.comparison_cost [--questions 200]

Starts a stack and compares on the example company before any training, as a client does it; wanted
are at most six minutes. Two of the seven arms copy, five ask the base model. These five are then
asked again straight at the inference service, three times: as the comparer asks them, in the order
of the file, and with no prompt's beginning kept. Each time nothing of the time before is kept.
Prints a markdown table of seconds by the clock and of the engine's processor seconds, for where
other work cannot be kept away.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psutil
from pydantic import SecretStr

from cli import compare
from examples.company.build import HELD_OUT, TRAIN
from services.worker.comparing.arms import Shown
from services.worker.comparing.asking import Inference, ask_all
from services.worker.comparing.material import Material, gather
from services.worker.comparing.orders import Orders
from services.worker.comparing.prompts import Turn
from services.worker.comparing.settings import ComparerSettings
from shared.comparisons.models import Comparison
from shared.db import make_engine, transaction
from shared.evidence.arms import Arm
from tests.e2e.comparisons import wait_for_end
from tests.e2e.jobs import BASE_MODEL, upload
from tests.running_stack import Customer, RunningStack

COPIES = (Arm.COPY_BM25, Arm.COPY_EMBEDDING)
ASKED = (Arm.ZERO_SHOT, Arm.FEW_SHOT, Arm.RETRIEVED_1, Arm.RETRIEVED_3, Arm.RETRIEVED_5)
PATIENCE_SECONDS = 1800


class Forgetful(Inference):
    """Asks so that the engine finds the beginning of no prompt again."""

    def body(self, model: str, messages: list[Turn], max_tokens: int) -> dict[str, Any]:
        """Build a request with a prefix cache of its own."""
        return super().body(model, messages, max_tokens) | {"cache_salt": uuid4().hex}


@dataclass(frozen=True)
class Clock:
    """Seconds by the clock, and the engine's processor seconds."""

    wall: float
    processor: float

    def __sub__(self, earlier: "Clock") -> "Clock":
        return Clock(self.wall - earlier.wall, self.processor - earlier.processor)

    def __str__(self) -> str:
        return f"{self.wall:.0f} s | {self.processor:.0f} s"


def clock(stack: RunningStack) -> Clock:
    """Read both."""
    leader = psutil.Process(stack.pid_of("inference"))
    used = [each.cpu_times() for each in (leader, *leader.children(recursive=True))]
    return Clock(time.monotonic(), sum(times.user + times.system for times in used))


def compared(tenant: Customer, questions: int) -> str:
    """Compare as a client does; return the comparison's id."""
    files = [upload(tenant.client, path.read_bytes()) for path in (TRAIN, HELD_OUT)]
    asked: dict[str, Any] = {"model": BASE_MODEL, "checker": "fact", "max_tokens": 40, "seed": 1}
    asked |= {"training_file": files[0], "held_out_file": files[1]}
    asked |= {"arms": [*COPIES, *ASKED], "questions": questions}
    comparison_id = compare.create(tenant.client, asked)
    wait_for_end(tenant, comparison_id, PATIENCE_SECONDS)
    return comparison_id


def read(stack: RunningStack, comparison_id: str) -> Material:
    """Read the comparison as its comparer did."""
    wiring = stack.wiring
    settings = ComparerSettings(
        system_database_url=SecretStr(wiring.system_database_url),
        broker_url=SecretStr(wiring.broker_url),
        store_dir=stack.store_dir,
        models_dir=wiring.models_dir,
        inference_secret=SecretStr(stack.inference_secret),
        cache_salt_key=SecretStr(uuid4().hex),
    )
    engine = make_engine(wiring.system_database_url)
    with transaction(engine) as session:
        comparison = session.get_one(Comparison, comparison_id)
    return gather(settings, engine, comparison)


def ask(
    stack: RunningStack,
    material: Material,
    kind: type[Inference],
    key: Callable[[Shown], Any] | None,
) -> None:
    """Ask the five arms, the questions of each in the comparer's order or by ``key``."""
    inference = kind(
        turn=lambda _: nullcontext(stack.inference_url),
        secret=stack.inference_secret,
        tenant_id=material.comparison.tenant_id,
        salt_key=uuid4().hex,
        in_flight=ComparerSettings.model_fields["comparer_in_flight"].default,
    )
    for arm in ASKED:
        shown = material.plan.shown(arm, material.questions)
        asks = (material.plan.ask(arm, each) for each in (sorted(shown, key=key) if key else shown))
        asyncio.run(
            ask_all(
                inference,
                BASE_MODEL,
                asks,
                max_tokens=material.max_tokens,
                save=lambda _: None,
                orders=Orders(),
            )
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=200)
    questions = parser.parse_args().questions
    stack = RunningStack()
    try:
        stack.up()
        print(f"| {questions} questions | clock | engine's processor time |")
        print("|---|---|---|")
        began = clock(stack)
        comparison_id = compared(stack.tenant("cost"), questions)
        print(f"| seven arms, through the API | {clock(stack) - began} |", flush=True)
        material = read(stack, comparison_id)
        for name, kind, key in (
            ("five arms, as the comparer asks", Inference, None),
            ("in the order of the file", Inference, lambda each: each.question.line),
            ("without a prefix cache", Forgetful, None),
        ):
            began = clock(stack)
            ask(stack, material, kind, key)
            print(f"| {name} | {clock(stack) - began} |", flush=True)
    finally:
        stack.remove()


if __name__ == "__main__":
    main()
