"""A comparison outlives the death of whatever takes part in it, and asks no question twice."""

import os
import random
import signal
import time

import psutil
import pytest
from sqlalchemy import select

from cli import compare
from shared.comparisons.models import ComparisonAnswer
from shared.db import make_engine, transaction
from shared.evidence.report import Report
from tests.conftest import wait_until
from tests.e2e.comparisons import begin, shelf_rows, wait_for_end

pytestmark = pytest.mark.fault

ARMS = ["copy_bm25", "zero_shot", "few_shot", "retrieved_3"]
ROWS = shelf_rows(120)
ANSWERS = len(ARMS) * 24


def without_times(report: Report) -> dict[str, object]:
    """Return what must be the same of a report, however long answers took."""
    found = report.model_dump(exclude={"comparison"})
    for arm in found["arms"]:
        del arm["first_token_seconds"], arm["answer_seconds"]
    return found


@pytest.fixture(scope="module")
def tenant(fault_stack):
    return fault_stack.tenant("comparing")


@pytest.fixture(scope="module")
def undisturbed(tenant):
    comparison_id = begin(tenant, ROWS, arms=ARMS)
    wait_for_end(tenant, comparison_id)
    return without_times(compare.report_of(tenant.client, comparison_id))


@pytest.mark.parametrize("victim", ["comparer", "inference", "postgres"])
def test_a_kill_at_a_drawn_moment_changes_nothing(fault_stack, tenant, undisturbed, victim):
    seed = random.randrange(10**6)
    moment = random.Random(seed).randrange(10, ANSWERS - 10)
    print(f"seed {seed}: {victim} is killed after {moment} of {ANSWERS} answers")
    engine = make_engine(fault_stack.system_database_url)
    comparison_id = begin(tenant, ROWS, arms=ARMS)

    def answers() -> dict[tuple[str, int], ComparisonAnswer]:
        mine = ComparisonAnswer.comparison_id == comparison_id
        with transaction(engine) as session:
            rows = session.scalars(select(ComparisonAnswer).where(mine)).all()
            return {(row.arm, row.line): row for row in rows}

    wait_until(lambda: len(answers()) >= moment, "enough answers", seconds=120)
    before = answers()
    kill(fault_stack, victim)
    comparison = wait_for_end(tenant, comparison_id, 240)
    after = answers()
    assert len(after) == ANSWERS
    for key, row in before.items():
        # Kept as it was: it was not asked again.
        assert after[key].answer_seconds == row.answer_seconds
    assert without_times(compare.report_of(tenant.client, comparison_id)) == undisturbed
    if victim == "comparer":
        assert comparison["attempt"] == 2
    engine.dispose()


def kill(stack, victim: str) -> None:
    """SIGKILL a service's main process and all below it, and wait until it is another."""
    pid = stack.pid_of(victim)
    leader = psutil.Process(pid)
    for process in [leader, *leader.children(recursive=True)]:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + 60
    while stack.pid_of(victim) in {pid, None}:
        assert time.monotonic() < deadline, f"{victim} was not started again"
        time.sleep(0.1)
